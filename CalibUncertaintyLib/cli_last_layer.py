"""The verb `last-layer` for a terminal: its options, and what it answers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TextIO

from .progress import JsonProgress, Progress


def add_last_layer(
    verbs: argparse._SubParsersAction, parents: Sequence[argparse.ArgumentParser], verb: Callable
) -> None:
    """The verb's options. verbs: of the parser. parents: parsers with the options it shares. verb: what runs it."""
    last_layer = verbs.add_parser(
        "last-layer",
        parents=list(parents),
        help="fine-tune the last layer on held-out labelled cases, into a copy of the model",
        epilog="Not a calibration that is stored beside a model, but another model: ask it with --checkpoints"
        " checkpoint_last_layer.pth, and calibrate it as any other. The model it comes from is only read. It changes labels nearly"
        " always: without --allow-changed-labels the figures are told and nothing is written.",
    )
    last_layer.add_argument("--model", required=True, help="trained nnU-Net v2 folder")
    last_layer.add_argument(
        "--cases",
        required=True,
        metavar="LIST",
        help="CSV with the columns id, ct, labels and perhaps split (its rows of split calibration), or a JSON list",
    )
    last_layer.add_argument(
        "--test-cases",
        metavar="LIST",
        help="list of cases to measure on, perhaps the same file (its rows of split test); without it the figures are of the"
        " cases it was fitted on, and too good",
    )
    last_layer.add_argument("--out", required=True, metavar="DIR", help="folder of the new model; it must not exist")
    last_layer.add_argument(
        "--allow-changed-labels", action="store_true", help="write the model although labels change; they are counted"
    )
    last_layer.add_argument(
        "--roi",
        dest="roi_mm",
        type=float,
        default=15.0,
        metavar="MM",
        help="only voxels no farther from a structure, predicted or drawn, than this count, mm (default 15)",
    )
    last_layer.add_argument(
        "--pull",
        type=float,
        metavar="P",
        help="how strongly the weights are pulled back to the trained ones, above 0, no unit (default 1e-4)",
    )
    last_layer.set_defaults(verb=verb)


def run_last_layer(options: argparse.Namespace, progress: Progress, _: TextIO) -> None:
    """Fit, say what changes, and write the new model folder."""
    from .model.folder import ModelFolder
    from .workflow.last_layer import LastLayerOptions, fit_last_layer
    from .workflow.last_layer_folder import check_place_of_copy
    from .workflow.writing import output_folder

    out, model = output_folder(options.out), ModelFolder.open(options.model)
    check_place_of_copy(out, model, model.select_folds(options.folds))
    chosen = {
        name: getattr(options, name) for name in LastLayerOptions.names() if getattr(options, name, None) is not None
    }
    found = fit_last_layer(options.cases, model, test_cases=options.test_cases, progress=progress, **chosen)
    written = found.write(out, options.allow_changed_labels)
    if not isinstance(progress, JsonProgress):
        progress.done(found.in_words())
    progress.done(str(written))
