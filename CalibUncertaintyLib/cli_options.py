"""What may be written behind `calib-uncertainty`: the verbs and their options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from .cli_evaluate import add_evaluate
from .cli_last_layer import add_last_layer
from .version import __version__

_MOST_DIGITS = 9  # of a fold's number


def parser_of(verbs_of: Mapping[str, Callable]) -> argparse.ArgumentParser:
    """The parser; the function of the verb that was chosen comes out as `verb`."""
    parser = argparse.ArgumentParser(
        prog="calib-uncertainty",
        description="Calibrated probabilities and uncertainty maps for nnU-Net v2 segmentation of CT. Not a medical device.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    shown = argparse.ArgumentParser(add_help=False)
    shown.add_argument("--quiet", action="store_true", help="no progress bar; warnings and answers are still shown")
    shown.add_argument(
        "--progress", choices=["bar", "json"], default="bar", help="bar, or one JSON object a line on stdout"
    )
    members, pooling, computing = _member_options(), _pooling_options(), _computing_options()
    segment = _add_segment(verbs, [common, shown, members, pooling, computing])
    calibrate = _add_calibrate(verbs, [common, shown, members, computing])
    segment.set_defaults(verb=verbs_of["segment"])
    calibrate.set_defaults(verb=verbs_of["calibrate"])
    add_evaluate(verbs, [common, shown, members, pooling, computing], verbs_of["evaluate"])
    add_last_layer(verbs, [common, shown, members, computing], verbs_of["last-layer"])
    _add_looking(verbs, common, members, pooling, computing, verbs_of)
    picture = verbs.add_parser("picture", parents=[common], help="a montage of slices of a Result")
    picture.add_argument("result", help="Result folder")
    picture.add_argument("--ct", required=True, help="the CT it was made from")
    picture.add_argument("--out", help="PNG file (default: montage.png in the Result folder)")
    picture.add_argument("--series", help="SeriesInstanceUID, where a DICOM folder holds several")
    picture.set_defaults(verb=verbs_of["picture"])
    run = verbs.add_parser("run", parents=[common, shown], help="a request file, as the Slicer panel writes it")
    run.add_argument("request", help='JSON file {"verb": "segment", "arguments": {...}}')
    run.set_defaults(verb=verbs_of["run"])
    return parser


def _member_options() -> argparse.ArgumentParser:
    """Which members are asked."""
    members = argparse.ArgumentParser(add_help=False)
    members.add_argument(
        "--folds", nargs="+", default="all", metavar="FOLD", action=_Folds, help="fold numbers, or all (default)"
    )
    members.add_argument(
        "--checkpoints",
        nargs="+",
        metavar="FILE",
        help="checkpoint files of each fold, patterns in quotes such as 'checkpoint_cycle*', or all (default:"
        " checkpoint_final.pth); each is a member",
    )
    members.add_argument(
        "--flips",
        choices=["mean", "off", "members"],
        default="mean",
        help="mean: nnU-Net's mirroring, averaged inside each member (default); off: none, and faster; members: each flip is a"
        " member of its own",
    )
    members.add_argument("--no-mirroring", dest="mirroring", action="store_false", help="the same as --flips off")
    members.add_argument(
        "--dropout",
        type=int,
        default=0,
        metavar="N",
        help="ask each network N times with its dropout active, each time a member (default 0: dropout off)",
    )
    members.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of the dropout's random numbers (default 0); the same seed repeats",
    )
    members.add_argument(
        "--insert-dropout",
        type=float,
        metavar="P",
        help="put dropout of rate P, between 0 and 1, into a network trained without; this makes probabilities worse",
    )
    return members


def _pooling_options() -> argparse.ArgumentParser:
    """How they are pooled."""
    pooling = argparse.ArgumentParser(add_help=False)
    pooling.add_argument(
        "--mode",
        choices=["pool_logit", "pool_prob", "shared", "member"],
        default="pool_logit",
        help="pool_logit: labels as stock nnU-Net's (default); pool_prob: mean probability, then calibrated; shared, member: every"
        " member calibrated before the mean, all by one temperature or each by its own",
    )
    return pooling


def _computing_options() -> argparse.ArgumentParser:
    """How they are computed."""
    computing = argparse.ArgumentParser(add_help=False)
    computing.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    computing.add_argument(
        "--precision",
        choices=["stock", "bf16"],
        default="stock",
        help="stock: as nnU-Net computes (default); bf16: half the bits, faster on CPUs that have it, and it is counted how many"
        " labels differ",
    )
    computing.add_argument(
        "--step-size", type=float, default=0.5, help="step of the sliding window, of the patch (default 0.5)"
    )
    computing.add_argument(
        "--trainers", metavar="DIR", help="folder with the .py files of custom trainer classes; their code is run"
    )
    computing.add_argument(
        "--previous",
        metavar="DIR",
        help="model of a cascade's first stage, where it does not lie beside the second's folder",
    )
    computing.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="read checkpoints that hold more than plain data, and build networks of other packages that the plans name",
    )
    return computing


def _add_looking(verbs, common, members, pooling, computing, verbs_of: Mapping[str, Callable]) -> None:
    """`info`, `check` and `proof`: what is said of a model without running it."""
    info = verbs.add_parser(
        "info", parents=[common, members, pooling], help="what is in a model folder, and is it calibrated"
    )
    info.add_argument(
        "model", nargs="+", metavar="MODEL", help="trained nnU-Net v2 folder, or several to be asked together"
    )
    info.add_argument("--calibration", default="auto", help="auto (default), none, or a record file")
    info.set_defaults(verb=verbs_of["info"])
    check = verbs.add_parser(
        "check",
        parents=[common, members, pooling, computing],
        help="is the stored calibration whole, does it hold for these members, and for this CT",
        epilog="Exit status: 0 it holds, 1 it does not hold or cannot be checked, 2 wrong usage. A CT outside what was calibrated"
        " warns and does not change it.",
    )
    check.add_argument(
        "model", nargs="+", metavar="MODEL", help="trained nnU-Net v2 folder, or several to be asked together"
    )
    check.add_argument(
        "--calibration", default="auto", help="auto (default: calibration.json in the model folder), or a record file"
    )
    check.add_argument(
        "--ct",
        nargs="+",
        metavar="CT",
        help="also compare this CT with what was calibrated: spacing, field of view, HU",
    )
    check.add_argument("--series", help="SeriesInstanceUID, where a DICOM folder holds several")
    check.set_defaults(verb=verbs_of["check"])
    proof = verbs.add_parser(
        "proof", parents=[common, members, pooling, computing], help="the report of a stored calibration, with pictures"
    )
    proof.add_argument("model", nargs="+", metavar="MODEL", help="trained nnU-Net v2 folder, or several together")
    proof.add_argument("--calibration", default="auto", help="auto (default), or a record file")
    proof.add_argument("--out", required=True, help="folder for report.html, pictures and tables")
    proof.set_defaults(verb=verbs_of["proof"])


class _Folds(argparse.Action):
    """`--folds 0 1`, `--folds all`; "all" among numbers is a mistake."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        if values == ["all"]:
            setattr(namespace, self.dest, "all")
        elif all(value.isdecimal() and len(value) <= _MOST_DIGITS for value in values):
            setattr(namespace, self.dest, [int(value) for value in values])
        else:
            parser.error(f"{option_string}: give fold numbers, or all")


class _Measures(argparse.Action):
    """`--measures all`, `--measures standard`, `--measures mi epkl`."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        setattr(namespace, self.dest, values[0] if values in (["all"], ["standard"]) else values)


def _add_model(verb) -> None:
    verb.add_argument(
        "--model",
        required=True,
        action="append",
        metavar="MODEL",
        help="trained nnU-Net v2 folder; give it again for more with the same structures, whose folds are asked together",
    )


def _number_or_stored(text: str) -> float | str:
    try:
        return text if text == "stored" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"give a number, or stored; got {text!r}") from None


def _add_segment(verbs, parents) -> argparse.ArgumentParser:
    segment = verbs.add_parser(
        "segment", parents=parents, help="a CT to labels, calibrated probabilities and uncertainty maps"
    )
    segment.add_argument(
        "ct",
        nargs="+",
        metavar="CT",
        help="NIfTI, NRRD or MHA file, or a folder with a DICOM series; for a model with several input channels one for each, in"
        " the model's order",
    )
    _add_model(segment)
    segment.add_argument("--out", required=True, help="Result folder to make")
    segment.add_argument("--overwrite", action="store_true", help="replace an earlier Result in --out")
    segment.add_argument("--series", help="SeriesInstanceUID, where a DICOM folder holds several")
    segment.add_argument(
        "--calibration", default="auto", help="auto: the record beside the model (default); none; or a record file"
    )
    segment.add_argument(
        "--roi",
        dest="roi_mm",
        type=float,
        default=15.0,
        metavar="MM",
        help="how far from the structures regions are listed (default 15)",
    )
    segment.add_argument("--measure", default="entropy", help="measure the regions are made of (default entropy)")
    segment.add_argument(
        "--measures",
        nargs="+",
        default="standard",
        metavar="MEASURE",
        action=_Measures,
        help="which are computed beside that one: standard (default: conf margin entropy exp_entropy mi var dae, and of a"
        " calibrated model ebcu), all, or names",
    )
    segment.add_argument(
        "--threshold",
        type=_number_or_stored,
        default="stored",
        help="of that measure: a value, or the record's (default: stored)",
    )
    segment.add_argument(
        "--min-region",
        dest="min_region_ml",
        type=float,
        default=0.1,
        metavar="ML",
        help="smallest region listed, mL (default 0.1)",
    )
    segment.add_argument(
        "--merge-gap",
        dest="merge_gap_mm",
        type=float,
        default=2.0,
        metavar="MM",
        help="regions no farther from each other than this are one, mm (default 2; 0 merges none)",
    )
    segment.add_argument(
        "--miss-probability",
        type=float,
        default=0.1,
        help="probability beyond the ROI that is listed as a possible miss (default 0.1)",
    )
    segment.add_argument(
        "--box-probability",
        type=float,
        default=0.01,
        help="keep every place whose foreground probability exceeds this, at most 0.5 (default 0.01)",
    )
    segment.add_argument(
        "--full-volume", action="store_true", help="maps of the whole CT instead of the box that matters"
    )
    segment.add_argument(
        "--export", nargs="+", default=[], choices=["nifti"], help="nifti: every map on the full CT grid too"
    )
    segment.add_argument(
        "--skip-ct-check", action="store_true", help="take the image even if its values are not like a CT's"
    )
    return segment


def _add_calibrate(verbs, parents) -> argparse.ArgumentParser:
    calibrate = verbs.add_parser("calibrate", parents=parents, help="labelled held-out cases to a calibration record")
    _add_model(calibrate)
    calibrate.add_argument(
        "--cases",
        required=True,
        help="CSV with the columns id, ct, labels and perhaps split (paths relative to the CSV; several channels of a case with ;"
        " between them), a JSON list, or a raw nnU-Net dataset folder: then each fold is calibrated on the cases it did not see",
    )
    calibrate.add_argument("--out", help="record file (default: calibration.json in the model folder)")
    calibrate.add_argument("--proof", metavar="DIR", help="also write a report with pictures and tables there")
    calibrate.add_argument(
        "--mode",
        default="pool",
        choices=["pool", "all", "auto", "pool_logit", "pool_prob", "shared", "member"],
        help="which ways of pooling are calibrated: pool (both that pool first, default), all, one of them, or auto: the best by"
        " cross-validation that changes no label",
    )
    calibrate.add_argument(
        "--method",
        default="temperature",
        help="temperature (default), platt, platt_slope, vector, matrix, dirichlet, isotonic, cc_order, cc_argmax,"
        " auxiliary_convolution, local_temperature; or auto: the best by cross-validation that changes no label",
    )
    calibrate.add_argument(
        "--allow-changed-labels", action="store_true", help="store a method even if it changes labels; they are counted"
    )
    calibrate.add_argument("--split", help="of a list with a column split (default: its rows of split calibration)")
    calibrate.add_argument(
        "--splits", metavar="FILE", help="splits_final.json, where --cases is a dataset and it is not found"
    )
    calibrate.add_argument(
        "--excluded", nargs="+", default=[], metavar="ID", help="cases that must not be used, as those kept for testing"
    )
    calibrate.add_argument(
        "--resample-labels", action="store_true", help="bring label maps of another grid to their CT's (nearest)"
    )
    calibrate.add_argument(
        "--npz",
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of stock nnU-Net's saved probabilities (<id>.npz), one for each fold, in place of running the model",
    )
    calibrate.add_argument(
        "--roi", dest="roi_mm", type=float, default=15.0, metavar="MM", help="fit within this distance (default 15)"
    )
    return calibrate
