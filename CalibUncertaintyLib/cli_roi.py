"""The option `--roi MM|body` that several verbs share."""

from __future__ import annotations

import argparse


def add_roi(verb: argparse.ArgumentParser, help_text: str) -> None:
    """Add it to a verb: a number becomes `roi_mm`, "body" becomes `roi`."""
    verb.add_argument("--roi", action=_Roi, metavar="MM|body", default="structures", help=help_text)
    verb.set_defaults(roi_mm=15.0)


class _Roi(argparse.Action):
    """`--roi 20`, `--roi body`; both may be given."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        if values == "body":
            namespace.roi = values
            return
        try:
            namespace.roi_mm = float(values)
        except ValueError:
            parser.error(f"argument {option_string}: give a distance in mm, or body, not {values!r}")
