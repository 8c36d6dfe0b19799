"""What may be written behind `calib-uncertainty`: the verbs and their options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from .cli_evaluate import add_evaluate
from .cli_help import PROGRAM, SHOWING, explain
from .cli_last_layer import add_last_layer
from .cli_members import computing_options, member_options, pooling_options
from .cli_roi import add_roi
from .version import __version__


def parser_of(verbs_of: Mapping[str, Callable]) -> argparse.ArgumentParser:
    """The parser; the function of the verb that was chosen comes out as `verb`."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Calibrated probabilities and uncertainty maps for nnU-Net v2 segmentation of CT. Not a medical device.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument_group(SHOWING).add_argument(
        "--debug", action="store_true", help="show the traceback of a failure, for whoever helps you"
    )
    shown = argparse.ArgumentParser(add_help=False)
    showing = shown.add_argument_group(SHOWING)
    showing.add_argument("--quiet", action="store_true", help="no progress; warnings and answers are still shown")
    showing.add_argument(
        "--progress", choices=["bar", "json"], default="bar",
        help="bar (default): a line that a person reads; json: one JSON object a line on stdout, for programs",
    )  # fmt: skip
    members, pooling, computing = member_options(), pooling_options(), computing_options()
    segment = _add_segment(verbs, [common, shown, members, pooling, computing])
    calibrate = _add_calibrate(verbs, [common, shown, members, computing])
    segment.set_defaults(verb=verbs_of["segment"])
    calibrate.set_defaults(verb=verbs_of["calibrate"])
    add_evaluate(verbs, [common, shown, members, pooling, computing], verbs_of["evaluate"])
    add_last_layer(verbs, [common, shown, members, computing], verbs_of["last-layer"])
    _add_looking(verbs, common, members, pooling, computing, verbs_of)
    picture = verbs.add_parser("picture", parents=[common], help="a montage of slices of a Result")
    picture.add_argument("result", metavar="RESULT", help="Result folder")
    picture.add_argument("--ct", required=True, metavar="CT", help="the CT it was made from: a file, or a DICOM folder")
    picture.add_argument("--out", metavar="FILE", help="PNG file (default: montage.png in the Result folder)")
    _add_series(picture)
    picture.set_defaults(verb=verbs_of["picture"])
    run = verbs.add_parser("run", parents=[common, shown], help="a request file, as the Slicer panel writes it")
    run.add_argument("request", metavar="REQUEST", help='JSON file {"verb": "segment", "arguments": {...}}')
    run.set_defaults(verb=verbs_of["run"])
    explain(parser, verbs.choices)
    return parser


def _add_looking(verbs, common, members, pooling, computing, verbs_of: Mapping[str, Callable]) -> None:
    """`info`, `check` and `proof`: what is said of a model without running it."""
    info = verbs.add_parser(
        "info", parents=[common, members, pooling], help="what is in a model folder, and is it calibrated"
    )
    info.add_argument(
        "model", nargs="+", metavar="MODEL", help="trained nnU-Net v2 folder, or several to be asked together"
    )
    _add_calibration(info)
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
        help="also compare this CT with those it was calibrated on: spacing and field of view in mm, HU",
    )
    _add_series(check)
    check.set_defaults(verb=verbs_of["check"])
    proof = verbs.add_parser(
        "proof", parents=[common, members, pooling, computing], help="the report of a stored calibration, with pictures"
    )
    proof.add_argument("model", nargs="+", metavar="MODEL", help="trained nnU-Net v2 folder, or several together")
    _add_calibration(proof)
    proof.add_argument("--out", required=True, metavar="DIR", help="folder for report.html, pictures and tables")
    proof.set_defaults(verb=verbs_of["proof"])


class _Measures(argparse.Action):
    """`--measures all`, `--measures standard`, `--measures mi epkl`."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        setattr(namespace, self.dest, values[0] if values in (["all"], ["standard"]) else values)


def _add_series(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--series", metavar="UID", help="SeriesInstanceUID of the one to read, where a DICOM folder holds several"
    )


def _add_calibration(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--calibration", default="auto", metavar="FILE",
        help="auto (default): calibration.json in the model folder; none: the network's own probabilities; or a record file",
    )  # fmt: skip


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
    segment.add_argument(
        "--skip-ct-check", action="store_true", help="take the image even if its values are not like a CT's"
    )
    _add_model(segment)
    segment.add_argument("--out", required=True, metavar="DIR", help="Result folder to make")
    segment.add_argument("--overwrite", action="store_true", help="replace an earlier Result in --out")
    _add_series(segment)
    _add_calibration(segment)
    _add_regions(segment)
    _add_kept(segment)
    return segment


def _add_regions(segment: argparse.ArgumentParser) -> None:
    """Which uncertain regions are listed."""
    add_roi(
        segment,
        "how far from the predicted structures uncertain regions are listed, mm (default 15); or body: anywhere in the patient,"
        " without air and table, with maps of all of it, as large as with --full-volume; given twice, as --roi 20 --roi body, the"
        " distance is from where on a possible miss is listed",
    )
    segment.add_argument(
        "--measure", default="entropy", metavar="NAME",
        help="measure of uncertainty that the regions are made of (default entropy); the names are those of --measures",
    )  # fmt: skip
    segment.add_argument(
        "--measures",
        nargs="+",
        default="standard",
        metavar="MEASURE",
        action=_Measures,
        help="measures of uncertainty that are computed beside that one: standard (default: conf margin entropy exp_entropy mi var"
        " dae, and of a calibrated model ebcu), all, or names: those, epkl rmi varratio dae_linear dae_resid ebcu_p ebcu_self;"
        " Docs/Measures.md says what each is",
    )
    segment.add_argument(
        "--threshold",
        type=_number_or_stored,
        default="stored",
        metavar="VALUE",
        help="from where up a voxel is uncertain, in the measure's unit (entropy: nats); stored (default): what calibration found"
        " best, or without one half of ln 2, 0.35 nats",
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
        help="regions no farther from each other than this, mm, are one (default 2; 0 merges none)",
    )
    segment.add_argument(
        "--miss-probability",
        type=float,
        default=0.1,
        metavar="P",
        help="farther than --roi from every structure, places where some structure has at least this probability, 0 to 1, are"
        " listed as a possible miss (default 0.1)",
    )


def _add_kept(segment: argparse.ArgumentParser) -> None:
    """Which part of the CT has maps, and in which files."""
    segment.add_argument(
        "--box-probability",
        type=float,
        default=0.01,
        metavar="P",
        help="keep in the maps every place where some structure has more than this probability, at most 0.5 (default 0.01)",
    )
    segment.add_argument(
        "--full-volume", action="store_true", help="maps of the whole CT instead of the box that matters"
    )
    segment.add_argument(
        "--export",
        nargs="+",
        default=[],
        choices=["nifti"],
        help="nifti: every map on the full CT grid as .nii.gz, too (default: none)",
    )


def _add_calibrate(verbs, parents) -> argparse.ArgumentParser:
    calibrate = verbs.add_parser("calibrate", parents=parents, help="labelled held-out cases to a calibration record")
    _add_model(calibrate)
    calibrate.add_argument(
        "--cases",
        required=True,
        metavar="LIST",
        help="CSV with the columns id, ct, labels and perhaps split (paths relative to the CSV; several channels of a case with ;"
        " between them), a JSON list, or a raw nnU-Net dataset folder: then each fold is calibrated on the cases it did not see",
    )
    calibrate.add_argument(
        "--out", metavar="FILE", help="record file to write or add to (default: calibration.json in the model folder)"
    )
    calibrate.add_argument(
        "--proof",
        metavar="DIR",
        help="also write a report with pictures and tables there (default: none; see the verb proof)",
    )
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
        metavar="NAME",
        help="the calibrator: temperature (default), platt, platt_slope, vector, matrix, dirichlet, isotonic, cc_order, cc_argmax,"
        " auxiliary_convolution, local_temperature; or auto: the best by cross-validation that changes no label",
    )
    calibrate.add_argument(
        "--allow-changed-labels", action="store_true", help="store a method even if it changes labels; they are counted"
    )
    calibrate.add_argument(
        "--split", metavar="NAME", help="rows of a list with a column split that are taken (default: calibration)"
    )
    calibrate.add_argument(
        "--splits", metavar="FILE", help="splits_final.json, where --cases is a dataset (default: looked for)"
    )
    calibrate.add_argument(
        "--excluded",
        nargs="+",
        default=[],
        metavar="ID",
        help="cases that must not be used, such as those kept for testing",
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
    add_roi(
        calibrate,
        "only voxels no farther from a structure, predicted or drawn, than this count, mm (default 15); or body: all of the"
        " patient, for segment --roi body (slower and larger; it takes the place of what was stored for the same members: choose"
        " another --out to keep both)",
    )
    return calibrate
