"""What a run will take is told before it starts, without PyTorch, and in the computation's own words once it runs."""

import json
import subprocess
import sys

import pytest


@pytest.fixture
def demo(panel, ct):
    from CalibUncertaintyPanel import sample

    panel.ui.modelPathLineEdit.currentPath = str(sample.modelFolder())


def test_the_estimate_follows_folds_and_mirroring(panel, demo, slicer_application):
    def told():
        slicer_application.waitUntil(lambda: panel.ui.estimateLabel.text.startswith("Estimate"), seconds=10)
        return panel.ui.estimateLabel.text

    assert "5 members" in told()
    assert "memory" in told()
    assert "fewer mirrored copies" in told()
    panel.ui.mirroringCheckBox.click()
    slicer_application.waitUntil(lambda: "mirrored" not in panel.ui.estimateLabel.text, seconds=10)
    assert "5 members" in told()
    panel.parameterNode.folds = "0"
    slicer_application.waitUntil(lambda: "1 member" in panel.ui.estimateLabel.text, seconds=10)


def test_there_is_none_while_nothing_can_be_run(panel, demo, slicer_application):
    slicer_application.waitUntil(lambda: panel.ui.estimateLabel.text, seconds=10)
    panel.ui.ctSelector.setCurrentNode(None)
    assert not panel.ui.estimateLabel.isVisibleTo(panel.widget)


def test_a_model_that_cannot_be_estimated_can_be_run(panel, ct, model, finish, slicer_application, monkeypatch):
    from CalibUncertaintyPanel import runEstimate

    monkeypatch.setattr(runEstimate, "estimateSentence", lambda *_: 1 / 0)
    panel.parameterNode.folds = "1"
    slicer_application.waitUntil(lambda: not panel.estimate._timer.isActive(), seconds=10)
    assert not panel.ui.estimateLabel.isVisibleTo(panel.widget)
    panel.ui.runButton.click()
    finish()
    assert panel.overlays is not None


def test_the_computations_own_words_take_its_place(panel, ct, model, behave, finish):
    from CalibUncertaintyPanel.job import Event

    behave("slow")
    panel.ui.runButton.click()
    panel.run._handle(Event("progress", "about 4 min on the GPU", stage="load", fraction=0.1))
    assert panel.ui.estimateLabel.text == "about 4 min on the GPU"
    panel.update()
    assert panel.ui.estimateLabel.text == "about 4 min on the GPU"
    finish()


def test_it_is_arithmetic_without_torch_and_the_ct_is_not_copied(repository):
    code = """
import json, sys, types
import numpy as np
sys.path[:0] = ["CalibUncertainty", "."]
import slicer
sys.modules["slicer.i18n"] = types.SimpleNamespace(tr=lambda text: text)  # of the application, which is not there
from CalibUncertaintyPanel import runEstimate, testing
node = slicer.vtkMRMLScalarVolumeNode()
slicer.util.updateVolumeFromArray(node, np.zeros((20, 30, 40), np.int16))
from CalibUncertaintyPanel.mrmlTools import matrixFromArray
node.SetIJKToRASMatrix(matrixFromArray(testing.obliqueIjkToRas()))
grid = runEstimate.ctGrid(node)
model = "Resources/DemoModel/Dataset900_Phantom"
print(json.dumps({
    "sentence": runEstimate.estimateSentence(grid, model, "all", False, "cpu"),
    "torch": "torch" in sys.modules,
    "bytes": int(grid.array.base.nbytes if grid.array.base is not None else grid.array.nbytes),
    "spacing": grid.spacing_zyx,
    "same": bool(np.allclose(grid.ijk_to_ras, testing.obliqueIjkToRas())),
}))
"""
    answer = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout.strip().splitlines()[-1])
    assert not told["torch"]
    assert told["bytes"] < 100
    assert told["spacing"] == pytest.approx([3.0, 1.5, 1.5])
    assert told["same"]
    assert "on the CPU" in told["sentence"]
