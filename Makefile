# make env: install everything into .venv | make demo: the main job on the bundled model | make test: lint and the whole suite
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# On a machine without an NVIDIA GPU the plain package index would add gigabytes of CUDA packages to PyTorch.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := $(shell sed -n 's/^\(torch==.*\)/\1/p' constraints.txt)
TORCHVISION := $(shell sed -n 's/^\(torchvision==.*\)/\1/p' constraints.txt)
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Rendering without a screen, Qt without a screen, and one thread a process so that two cores serve two jobs
HEADLESS := VTK_DEFAULT_OPENGL_WINDOW=vtkEGLRenderWindow QT_QPA_PLATFORM=offscreen OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2}

.PHONY: env demo test test-slow lint format screenshots cmake-lists clean

env: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info[:2] <= (3, 13) else "Python 3.10 to 3.13 is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): about 3 GB, mostly PyTorch, VTK and Qt; some minutes on a fast line"
	@if command -v nvidia-smi >/dev/null 2>&1; then $(PIP) install $(TORCH); \
	else $(PIP) install --retries 0 --timeout 20 --index-url $(TORCH_CPU_INDEX) $(TORCH) $(TORCHVISION) 2>/dev/null \
	  || { echo "$(TORCH_CPU_INDEX) does not answer; taking PyTorch from the usual index (with CUDA, 3 GB more)"; \
	    $(PIP) install $(TORCH); }; fi
	$(PIP) install -c constraints.txt -e '.[test]'
	@touch $@

demo: env
	@$(HEADLESS) $(BIN)/python Testing/demo.py --out demo-output

# Two files at a time, one core each
test: export OMP_NUM_THREADS := 1
test: env lint
	$(HEADLESS) $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: env
	$(HEADLESS) $(BIN)/python -m pytest -m slow

lint: env
	$(BIN)/ruff check .

format: env
	$(BIN)/ruff format CalibUncertaintyLib Testing

screenshots: env
	$(HEADLESS) $(BIN)/python Testing/screenshots.py

cmake-lists: env
	$(BIN)/python Testing/update_cmake_lists.py

clean:
	rm -rf $(VENV) demo-output build *.egg-info
