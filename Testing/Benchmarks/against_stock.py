"""Time and memory of `segment` beside stock nnU-Net's own ways to the same members, in one run, as ratios.

    python Testing/Benchmarks/against_stock.py --ct CT --model MODEL --folds 0 1 2 3 4 [--no-mirroring] [--repeats 3]

Each way runs in a process of its own, so that its peak memory is its own. `ensemble` is stock's five-fold prediction: labels
and pooled probabilities, no members. `members` is stock run once a fold with its probabilities saved and read again, which
is what an uncertainty map needs from it. `segment` gives labels, calibrated probabilities, five measures, distances, regions.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from CalibUncertaintyLib.model.folder import ModelFolder

WAYS = ("ensemble", "members", "segment")


def stock(ct: Path, model: Path, folds: list[int], mirroring: bool, out: Path) -> None:
    """Stock prediction of these folds together, with probabilities saved as .npz."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=mirroring, allow_tqdm=False,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
    )  # fmt: skip
    predictor.initialize_from_trained_model_folder(str(ModelFolder.open(model).path), tuple(folds))
    predictor.predict_from_files_sequential([[str(ct)]], [str(out)], save_probabilities=True, overwrite=True)


def one_way(way: str, ct: Path, model: Path, folds: list[int], mirroring: bool, folder: Path) -> None:
    """Run one way in this process and print its time and peak memory as JSON."""
    import numpy as np

    began = time.perf_counter()
    if way == "segment":
        from CalibUncertaintyLib.workflow.segment import segment

        segment(ct, model, folder / "result", folds=folds, mirroring=mirroring)
    elif way == "ensemble":
        stock(ct, model, folds, mirroring, folder / "ensemble")
    else:
        mean = None
        for fold in folds:
            stock(ct, model, [fold], mirroring, folder / f"fold{fold}")
            p = np.load(folder / f"fold{fold}.npz")["probabilities"]
            mean = p if mean is None else mean + p
    seconds = time.perf_counter() - began
    print("FIGURES" + json.dumps({"s": seconds, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ct", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--folds", type=int, nargs="+", required=True)
    parser.add_argument("--no-mirroring", dest="mirroring", action="store_false")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.way:
        one_way(chosen.way, chosen.ct, chosen.model, chosen.folds, chosen.mirroring, chosen.folder)
        return
    seen: dict[str, list[dict]] = {way: [] for way in WAYS}
    for _ in range(chosen.repeats):
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, __file__, *sys.argv[1:], "--way", way, "--folder", folder]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
            seen[way].append(json.loads(done.stdout.split("FIGURES")[1]))
    for way in WAYS:
        seconds = statistics.median(run["s"] for run in seen[way])
        memory = max(run["mb"] for run in seen[way])
        ours = statistics.median(run["s"] for run in seen["segment"])
        print(f"{way:9s} {seconds:7.1f} s  {memory:7.0f} MB  segment takes {ours / seconds:.2f} of it")


if __name__ == "__main__":
    main()
