"""The benchmark of fit and metrics runs without a single opponent, and its own sums are right."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "Benchmarks"))
import calibration
import calibration_opponents

BENCHMARKS = Path(calibration.__file__).parent


def test_the_whole_program_runs_and_names_the_opponents_it_has_not_got():
    command = [sys.executable, str(BENCHMARKS / "calibration.py"), "--quick", "--voxels", "20000", "--repeat", "2"]
    # whatever is installed here, that Python has no opponent
    command += ["--opponents-python", str(BENCHMARKS / "no_such_python")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["missing"] == ["fiducio", "netcal", "torch-uncertainty", "torchmetrics"]
    assert (last["ratio_fit"], last["ratio_metrics"]) == (None, None)
    assert last["temperature_error"] < 1e-5
    assert last["temperature_recovery_error"] < 0.05
    assert 0 < last["extra_memory_mb"] < 200


def test_data_are_the_same_every_time_and_drawn_at_the_temperature_told(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        calibration.make(tmp_path / name, 4, 5000)
    logits, p, labels = (np.load(tmp_path / "first" / f"{name}.npy") for name in ("logits", "p", "labels"))
    for name, values in (("logits", logits), ("p", p), ("labels", labels)):
        assert (np.load(tmp_path / "second" / f"{name}.npy") == values).all()
    assert p.sum(axis=0) == pytest.approx(np.ones(5000), abs=1e-5)
    assert (p.argmax(axis=0) == labels).mean() > 0.7
    checked = calibration.check(tmp_path / "first")
    assert checked["temperature"] == pytest.approx(calibration.TRUE_TEMPERATURE, rel=0.1)


def test_only_right_answers_count_and_the_fastest_of_them_makes_the_ratio():
    found = {
        "wrong": {"s": 1.0, "counts": False},
        "slow": {"s": 9.0, "counts": True},
        "fast": {"s": 6.0, "counts": True},
        "absent": {"missing": "ModuleNotFoundError", "counts": False},
    }
    assert calibration.ratio(found, 2.0) == 3.0
    assert calibration.ratio({"absent": found["absent"]}, 2.0) is None
    a = {"ece_toplabel": 0.1, "ece_classes": [0.2, 0.3]}
    assert calibration.largest_difference(a, {"ece_toplabel": 0.1, "ece_classes": [0.2, 0.35]}) == pytest.approx(0.05)


@pytest.mark.skipif(not hasattr(calibration_opponents.signal, "setitimer"), reason="no timer on this system")
def test_an_opponent_that_can_no_longer_be_the_fastest_is_stopped():
    def endless():
        while True:
            pass

    assert calibration_opponents.measured(endless, 0.2) == {"slower_than": 0.2}
    figures = calibration_opponents.measured(lambda: bytearray(b"x") * 50_000_000 and 7, 20.0)
    assert figures["found"] == 7
    assert figures["s"] >= 0
