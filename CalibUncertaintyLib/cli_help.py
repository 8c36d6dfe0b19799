"""How `calib-uncertainty VERB --help` reads: a short usage line, options in groups, and an example of each verb."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

PROGRAM = "calib-uncertainty"
MEMBERS = "members: whom to ask; each fold, checkpoint, flip or dropout sample is one opinion"
COMPUTING = "computing"
SHOWING = "messages"
START = """\
A first look at a model, from labelled cases that it was not trained on to a picture:

  calib-uncertainty info MODEL
  calib-uncertainty calibrate --model MODEL --cases cases.csv
  calib-uncertainty segment ct.nii.gz --model MODEL --out RESULT
  calib-uncertainty picture RESULT --ct ct.nii.gz

calib-uncertainty VERB --help explains the options of each verb. MODEL is a trained nnU-Net v2 folder, the one that holds \
plans.json and fold_0, fold_1, ..."""

# What is written behind the verb, and examples of it
_USAGE: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "segment": (
        "CT --model MODEL --out RESULT [options]",
        ("segment ct.nii.gz --model MODEL --out RESULT", "segment DICOMFOLDER --model MODEL --out RESULT --folds 0 1 --flips off"),
    ),
    "calibrate": (
        "--model MODEL --cases LIST [options]",
        ("calibrate --model MODEL --cases cases.csv --proof REPORT",
         "calibrate --model MODEL --cases nnUNet_raw/Dataset501_HeadNeck"),
    ),
    "evaluate": (
        "--model MODEL --cases LIST --out FOLDER [options]",
        ("evaluate --model MODEL --cases cases.csv --out FOLDER",
         "evaluate --model MODEL --cases cases.csv --out FOLDER --configurations compared.json"),
    ),
    "last-layer": (
        "--model MODEL --cases LIST --out NEWMODEL [options]",
        ("last-layer --model MODEL --cases cases.csv --test-cases cases.csv --out NEWMODEL --allow-changed-labels",),
    ),
    "info": ("MODEL [MODEL ...] [options]", ("info MODEL", "info MODEL --folds 0 1 --flips off")),
    "check": ("MODEL [MODEL ...] [--ct CT] [options]", ("check MODEL", "check MODEL --ct ct.nii.gz")),
    "proof": ("MODEL [MODEL ...] --out REPORT [options]", ("proof MODEL --out REPORT",)),
    "picture": ("RESULT --ct CT [options]", ("picture RESULT --ct ct.nii.gz --out montage.png",)),
    "run": ("REQUEST [options]", ()),
}  # fmt: skip


class Paragraphs(argparse.HelpFormatter):
    """Fills each paragraph of a description or epilog; lines that are indented stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            part if part.startswith(" ") else super(Paragraphs, self)._fill_text(part, width, indent)
            for part in text.split("\n\n")
        )


def explain(parser: argparse.ArgumentParser, verbs: Mapping[str, argparse.ArgumentParser]) -> None:
    """Give the parser and those of its verbs short usage lines, descriptions and examples."""
    parser.formatter_class, parser.epilog = Paragraphs, START
    for name, verb in verbs.items():
        usage, examples = _USAGE[name]
        verb.usage, verb.formatter_class = f"{PROGRAM} {name} {usage}", Paragraphs
        shown = "\n".join(f"  {PROGRAM} {example}" for example in examples)
        verb.epilog = "\n\n".join(part for part in (verb.epilog, shown and f"Examples:\n\n{shown}") if part)
