"""The opponents of calibration.py: each fits or measures in a process of its own, in whichever Python has it installed.

Called by calibration.py as `PYTHON calibration_opponents.py fit|metrics NAME FOLDER THREADS LIMIT`; FOLDER holds logits.npy
(C, N) float16, p.npy (C, N) float32 and labels.npy (N,) uint8. LIMIT: seconds after which it gives up, 0 for none. It needs no
part of this repository. The last line is JSON.

An opponent gets its data as it wants them, contiguous and converted, before its clock starts.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from pathlib import Path

import numpy as np

BINS = 20


def fit_netcal(z, labels):
    """netcal's temperature scaling, from probabilities, in double precision: in single it stays at T = 1 (netcal 1.4)."""
    from netcal.scaling import TemperatureScaling

    p = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    scaling = TemperatureScaling()

    def run():
        scaling.fit(p, labels.astype(np.int64))
        return 1.0 / float(np.ravel(scaling.weights)[0])

    return run


def fit_torch_uncertainty(z, labels):
    """torch-uncertainty's temperature scaler: LBFGS over all logits at once."""
    import torch
    from torch_uncertainty.post_processing import TemperatureScaler

    whole = [(torch.from_numpy(z), torch.from_numpy(labels.astype(np.int64)))]
    scaler = TemperatureScaler(device="cpu")

    def run():
        scaler.fit(whole, progress=False)
        return float(np.ravel(scaler.temperature)[0])

    return run


def fit_fiducio(z, labels):
    """fiducio's temperature scaling with LBFGS, its faster optimiser here."""
    import torch
    from fiducio import TemperatureScaling

    scaling = TemperatureScaling(optimizer="lbfgs", device="cpu")
    logits, truth = torch.from_numpy(z), torch.from_numpy(labels.astype(np.int64))

    def run():
        scaling.fit(logits, truth)
        return scaling.temperature

    return run


def metrics_torchmetrics(p, labels):
    """Top-label and class-wise ECE, and MCE of both: the set that all opponents have."""
    import torch
    from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

    whole, truth = torch.from_numpy(p), torch.from_numpy(labels.astype(np.int64))
    classes = whole.shape[1]
    single = [(whole[:, index].contiguous(), (truth == index).long()) for index in range(classes)]

    def run():
        options = {"n_bins": BINS, "validate_args": False}
        found = {
            "ece_toplabel": float(multiclass_calibration_error(whole, truth, classes, norm="l1", **options)),
            "mce_toplabel": float(multiclass_calibration_error(whole, truth, classes, norm="max", **options)),
            "ece_classes": [float(binary_calibration_error(a, b, norm="l1", **options)) for a, b in single],
            "mce_classes": [float(binary_calibration_error(a, b, norm="max", **options)) for a, b in single],
        }
        return found

    return run


def metrics_netcal(p, labels):
    """The same set with netcal."""
    from netcal.metrics import ECE, MCE

    truth = labels.astype(np.int64)
    single = [(np.ascontiguousarray(p[:, index]), (truth == index).astype(np.int64)) for index in range(p.shape[1])]

    def run():
        return {
            "ece_toplabel": float(ECE(BINS).measure(p, truth)),
            "mce_toplabel": float(MCE(BINS).measure(p, truth)),
            "ece_classes": [float(ECE(BINS).measure(a, b)) for a, b in single],
            "mce_classes": [float(MCE(BINS).measure(a, b)) for a, b in single],
        }

    return run


def metrics_torch_uncertainty(p, labels):
    """The same set with torch-uncertainty's metric objects, one call of update and compute each."""
    import torch
    from torch_uncertainty.metrics.classification import CalibrationError, ClasswiseCalibrationError

    whole, truth = torch.from_numpy(p), torch.from_numpy(labels.astype(np.int64))
    classes = whole.shape[1]

    def measured(metric):
        metric.update(whole, truth)
        return metric.compute()

    def run():
        top = {
            norm: CalibrationError(task="multiclass", num_classes=classes, num_bins=BINS, norm=norm)
            for norm in ("l1", "max")
        }
        each = {
            norm: ClasswiseCalibrationError(classes, num_bins=BINS, norm=norm, reduction="none")
            for norm in ("l1", "max")
        }
        return {
            "ece_toplabel": float(measured(top["l1"])),
            "mce_toplabel": float(measured(top["max"])),
            "ece_classes": [float(value) for value in measured(each["l1"])],
            "mce_classes": [float(value) for value in measured(each["max"])],
        }

    return run


OPPONENTS = {
    "fit": {"netcal": fit_netcal, "torch-uncertainty": fit_torch_uncertainty, "fiducio": fit_fiducio},
    "metrics": {
        "torchmetrics": metrics_torchmetrics, "netcal": metrics_netcal, "torch-uncertainty": metrics_torch_uncertainty,
    },
}  # fmt: skip


class TooSlow(Exception):
    """The time is up in which this opponent could still have been the fastest."""


def memory_mb(key: str) -> float:
    """VmRSS (now) or VmHWM (highest) of this process in MB; 0 where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(key)), 0.0)


def measured(run, limit_s: float = 0.0) -> dict:
    """Seconds, processor seconds of all threads, memory beyond what was held before, and what was found.

    {"slower_than": s} when the limit is passed.
    """

    def stop(*_):
        raise TooSlow

    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the highest mark begins anew
    before, began, worked = memory_mb("VmRSS"), time.perf_counter(), time.process_time()
    if limit_s:
        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        found = run()
    except TooSlow:
        return {"slower_than": limit_s}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.perf_counter() - began
    return {
        "s": seconds,
        "cpu_s": time.process_time() - worked,
        "extra_mb": memory_mb("VmHWM") - before,
        "found": found,
    }


def main() -> None:
    task, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    threads, limit_s = int(sys.argv[4]), float(sys.argv[5])
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(threads)
    labels = np.load(folder / "labels.npy")
    values = np.load(folder / ("logits.npy" if task == "fit" else "p.npy"))
    voxels_first = np.ascontiguousarray(values.T.astype(np.float32))
    del values
    try:
        run = OPPONENTS[task][name](voxels_first, labels)
    except ImportError as problem:
        print("FIGURES " + json.dumps({"missing": f"{type(problem).__name__}: {problem}"}))
        return
    print("FIGURES " + json.dumps(measured(run, limit_s)))


if __name__ == "__main__":
    main()
