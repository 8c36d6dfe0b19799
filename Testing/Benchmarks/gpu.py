"""The table of engine.py on a CUDA machine, and a whole-body CT with a five-fold full-size network from file to overlays.

    python Testing/Benchmarks/gpu.py [--work FOLDER] [--only "whole-body full"]

NEVER RUN SO FAR: it was written on a machine without a GPU, so neither its figures nor its last details have been seen. It
refuses to run without CUDA. Times are absolute; `forward s` comes from CUDA events around the network, so it does not hold up the
queue.

`whole-body full` is 512 x 512 x 600 voxels, five folds of a network with 32 to 320 features and a patch of 128 x 128 x 128 (weights
by material.py, not trained): the time from the CT's file to overlays is `wall` plus the reading of every map by `Result`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import engine
import figures


def setups() -> list[engine.Setup]:
    """What engine.py measures, in an order in which the most wanted comes first."""
    one_and_five = ((1, "stock"), (5, "stock"))
    return [
        engine.Setup("whole-body", "full", 6, ((5, "stock"),), stock=False, read_maps=True),
        engine.Setup("usual", "medium", 6, one_and_five, fair=(1, 5), average=(1, 5), role="time"),
        engine.Setup("usual", "tiny", 25, (*one_and_five, (10, "stock")), fair=(1,), average=(1, 5), role="memory"),
        engine.Setup("usual", "medium", 25, one_and_five, fair=(5,), average=(1, 5)),
        engine.Setup("usual", "medium", 6, one_and_five, fair=(1, 5), average=(1, 5), flips=True),
        engine.Setup("usual", "medium", 25, one_and_five, fair=(1, 5), average=(1, 5), flips=True),
        engine.Setup("usual", "full", 25, one_and_five, fair=(5,), average=(1, 5)),
        engine.Setup("whole-body", "tiny", 6, one_and_five, fair=(1,), average=(1, 5)),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Measure on the first CUDA device, print the table and the times from CT to overlays."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="regular expression: only setups whose name it finds")
    parser.add_argument("--work", type=Path, help="folder for CTs, models and temporary files; kept")
    parser.add_argument("--json", type=Path, help="where everything goes; default results/engine_gpu.json beside this file")
    chosen = parser.parse_args(arguments)
    import torch

    if not torch.cuda.is_available():
        print("error: this benchmark needs a CUDA GPU that PyTorch can use; on a CPU run engine.py", file=sys.stderr)
        return 2
    wanted = engine.chosen_setups(setups(), chosen.only, parser)
    bench = engine.measured(wanted, "gpu", "cuda", chosen.work, chosen.json)
    bench.about["gpu"] = torch.cuda.get_device_name(0)
    status = engine.report(bench, wanted)
    for row in bench.rows:
        if "read_s" in row and row["way"] == figures.OURS:
            seconds = row["wall_s"] + row["read_s"]
            print(f"{bench.about['gpu']}: {row['setup']}, {row['members']} folds, CT file to overlays: {seconds:.1f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
