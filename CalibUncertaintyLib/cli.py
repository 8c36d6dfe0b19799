"""The verbs for a terminal: `calib-uncertainty segment`, `calibrate`, `info`, `picture`; and `run`, which the panel uses."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from .errors import CalibUncertaintyError, Cancelled
from .progress import JsonProgress, Progress, QuietProgress, TerminalProgress
from .version import __version__

OUT_OF_MEMORY = "there is not enough memory for this CT and model; close other programs, use fewer folds or the CPU"
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_CANCELLED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 1 refused or failed, 2 wrong usage, 130 stopped."""
    options = _parser().parse_args(arguments)
    answers = sys.stdout
    as_json = getattr(options, "progress", "bar") == "json"
    progress = (
        JsonProgress(answers)
        if as_json
        else QuietProgress()
        if getattr(options, "quiet", False)
        else TerminalProgress()
    )
    if hasattr(answers, "reconfigure"):
        answers.reconfigure(errors="replace")  # a structure's name may have letters that the terminal has not
    previous = _end_like_ctrl_c()
    try:
        # libraries print to stdout as they please; only answers belong there
        with contextlib.redirect_stdout(sys.stderr):
            options.verb(options, progress, answers)
        return EXIT_OK
    except (KeyboardInterrupt, Cancelled):
        _say(progress, "stopped on request; nothing was written")
        return EXIT_CANCELLED
    except CalibUncertaintyError as error:
        if options.debug:
            traceback.print_exc()
        _say(progress, str(error))
        return EXIT_FAILED
    except MemoryError:
        _say(progress, OUT_OF_MEMORY)
        return EXIT_FAILED
    except BrokenPipeError:
        _nobody_listens()
        return EXIT_FAILED
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        if _is_out_of_memory(error):
            _say(progress, OUT_OF_MEMORY)
            return EXIT_FAILED
        _say(progress, f"something unforeseen went wrong ({_in_one_line(error)}); run again with --debug and report it")
        return EXIT_FAILED
    finally:
        for which, handler in previous.items():
            signal.signal(which, handler)


def _say(progress: Progress, message: str) -> None:
    try:
        if isinstance(progress, JsonProgress):
            progress.emit("error", message=message)
        else:
            live = "\r\x1b[K" if sys.stderr.isatty() else ""
            print(f"{live}calib-uncertainty: {message}", file=sys.stderr)
    except BrokenPipeError:
        _nobody_listens()


def _nobody_listens() -> None:
    """Whoever read our output has gone; the exit's own flush must find something to write to."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - kept open until the exit


def _is_out_of_memory(error: Exception) -> bool:
    """PyTorch reports it as a RuntimeError, on the CPU and on a GPU."""
    return isinstance(error, RuntimeError) and any(
        word in str(error) for word in ("out of memory", "can't allocate memory")
    )


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


def _end_like_ctrl_c() -> dict:
    """A polite `kill`, and closing the terminal, clean up as Ctrl-C does; returns the handlers that were there."""

    def interrupt(*_):
        raise KeyboardInterrupt

    wanted = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # what was switched off stays off: `nohup` means that closing the terminal is to change nothing
    return {which: signal.signal(which, interrupt) for which in wanted if signal.getsignal(which) != signal.SIG_IGN}


def _segment(options: argparse.Namespace, progress: Progress, _) -> None:
    from .workflow.options import SegmentOptions
    from .workflow.segment import segment

    chosen = {name: getattr(options, name) for name in SegmentOptions.names() if hasattr(options, name)}
    result = segment(options.ct, options.model, options.out, progress=progress, **chosen)
    if isinstance(progress, JsonProgress):
        progress.done(str(result.folder))
        return
    found, calibration = result.provenance, result.provenance["calibration"]
    for line in (
        *(f"{name}: {volume:.1f} mL" for name, volume in found["segmentation"]["volumes_ml"].items()),
        calibration["summary"],
        "Labels changed by pooling: {by_pooling}, by temperature: {by_temperature}".format(**found["changed_labels"]),
        f"Regions to look at: {len(result.regions)}",
        f"Result: {result.folder}",
    ):
        progress.done(line)


def _run(options: argparse.Namespace, progress: Progress, answers) -> None:
    """What the panel starts: a request file instead of options."""
    path = Path(options.request)
    try:
        request = json.loads(path.read_text(encoding="utf-8"))
        verb, arguments = str(request["verb"]), {key: v for key, v in request["arguments"].items() if v is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CalibUncertaintyError(f"{path} is not a request (JSON with 'verb' and 'arguments')") from error
    verbs: dict[str, Callable] = {"segment": _segment, "calibrate": _calibrate}
    if verb not in verbs:
        raise CalibUncertaintyError(f"{path} asks for '{verb}'; known are {', '.join(verbs)}")
    required = {"segment": {"ct", "model", "out"}, "calibrate": {"model", "cases"}}[verb]
    known = required | _known_arguments(verb)
    missing, unknown = required - set(arguments), set(arguments) - known
    if missing or unknown:
        raise CalibUncertaintyError(
            f"{path}: missing {sorted(missing) or 'nothing'}, not known {sorted(unknown) or 'nothing'}"
        )
    verbs[verb](argparse.Namespace(**{"out": None, **arguments}), progress, answers)


def _known_arguments(verb: str) -> set[str]:
    if verb == "segment":
        from .workflow.options import SegmentOptions

        return set(SegmentOptions.names())
    from .workflow.calibrate import CalibrateOptions

    return {"out", *CalibrateOptions.names()}


def _calibrate(options: argparse.Namespace, progress: Progress, _) -> None:
    from .workflow.calibrate import CalibrateOptions, calibrate

    chosen = {name: getattr(options, name) for name in CalibrateOptions.names() if hasattr(options, name)}
    path, entry = calibrate(options.cases, options.model, options.out, progress=progress, **chosen)
    if isinstance(progress, JsonProgress):
        progress.done(str(path))
        return
    before, after = entry.figures["before"]["per_case"], entry.figures["after"]["per_case"]
    interval = entry.temperature_interval
    shown = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    progress.done(f"Temperature {entry.temperature:.3f}{shown}, from {len(entry.cases)} cases")
    for key, title in (("nll", "NLL"), ("ece_toplabel", "ECE (top label)")):
        progress.done(f"{title} on these cases: {before[key]:.4f} before, {after[key]:.4f} after")
    progress.done(f"Record: {path}")


def _info(options: argparse.Namespace, _, answers) -> None:
    from .model.folder import ModelFolder
    from .workflow.applied import choose_calibration

    model = ModelFolder.open(options.model)
    folds = model.select_folds(options.folds)
    lines = model.describe(folds)
    calibration = choose_calibration(model, folds, options.mirroring, options.mode, options.calibration)
    lines.append(calibration.summary(folds) + (f"; {calibration.reason}" if calibration.calibrated else ""))
    print("\n".join(lines), file=answers)


def _picture(options: argparse.Namespace, _, answers) -> None:
    from .volume import Volume
    from .workflow.picture import montage

    out = Path(options.out or Path(options.result) / "montage.png")
    montage(Path(options.result), Volume.read(options.ct, options.series), out)
    print(out, file=answers)


def _parser() -> argparse.ArgumentParser:
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
    members = argparse.ArgumentParser(add_help=False)
    members.add_argument(
        "--folds", nargs="+", default="all", metavar="FOLD", action=_Folds, help="fold numbers, or all (default)"
    )
    members.add_argument(
        "--no-mirroring", dest="mirroring", action="store_false", help="without nnU-Net's test-time mirroring"
    )
    pooling = argparse.ArgumentParser(add_help=False)
    pooling.add_argument(
        "--mode",
        choices=["pool_logit", "pool_prob"],
        default="pool_logit",
        help="pool_logit: labels as stock nnU-Net's (default); pool_prob: mean probability",
    )
    computing = argparse.ArgumentParser(add_help=False)
    computing.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    computing.add_argument(
        "--step-size", type=float, default=0.5, help="step of the sliding window, of the patch (default 0.5)"
    )
    computing.add_argument(
        "--trust-checkpoint", action="store_true", help="read checkpoints that hold more than plain data"
    )
    _add_segment(verbs, [common, shown, members, pooling, computing])
    _add_calibrate(verbs, [common, shown, members, computing])
    info = verbs.add_parser(
        "info", parents=[common, members, pooling], help="what is in a model folder, and is it calibrated"
    )
    info.add_argument("model", help="trained nnU-Net v2 folder")
    info.add_argument("--calibration", default="auto", help="auto (default), none, or a record file")
    info.set_defaults(verb=_info)
    picture = verbs.add_parser("picture", parents=[common], help="a montage of slices of a Result")
    picture.add_argument("result", help="Result folder")
    picture.add_argument("--ct", required=True, help="the CT it was made from")
    picture.add_argument("--out", help="PNG file (default: montage.png in the Result folder)")
    picture.add_argument("--series", help="SeriesInstanceUID, where a DICOM folder holds several")
    picture.set_defaults(verb=_picture)
    run = verbs.add_parser("run", parents=[common, shown], help="a request file, as the Slicer panel writes it")
    run.add_argument("request", help='JSON file {"verb": "segment", "arguments": {...}}')
    run.set_defaults(verb=_run)
    return parser


class _Folds(argparse.Action):
    """`--folds 0 1`, `--folds all`; "all" among numbers is a mistake."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        if values == ["all"]:
            setattr(namespace, self.dest, "all")
        elif all(value.isdecimal() for value in values):
            setattr(namespace, self.dest, [int(value) for value in values])
        else:
            parser.error(f"{option_string}: give fold numbers, or all")


def _number_or_stored(text: str) -> float | str:
    return text if text == "stored" else float(text)


def _add_segment(verbs, parents) -> None:
    segment = verbs.add_parser(
        "segment", parents=parents, help="a CT to labels, calibrated probabilities and uncertainty maps"
    )
    segment.add_argument("ct", help="NIfTI, NRRD or MHA file, or a folder with a DICOM series")
    segment.add_argument("--model", required=True, help="trained nnU-Net v2 folder")
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
        "--miss-probability",
        type=float,
        default=0.1,
        help="probability beyond the ROI that is listed as a possible miss (default 0.1)",
    )
    segment.add_argument(
        "--box-probability",
        type=float,
        default=0.01,
        help="keep every place whose foreground probability exceeds this (default 0.01)",
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
    segment.set_defaults(verb=_segment)


def _add_calibrate(verbs, parents) -> None:
    calibrate = verbs.add_parser("calibrate", parents=parents, help="labelled held-out cases to a calibration record")
    calibrate.add_argument("--model", required=True, help="trained nnU-Net v2 folder")
    calibrate.add_argument(
        "--cases", required=True, help="CSV with the columns id, ct, labels (paths relative to the CSV)"
    )
    calibrate.add_argument("--out", help="record file (default: calibration.json in the model folder)")
    calibrate.add_argument(
        "--roi", dest="roi_mm", type=float, default=15.0, metavar="MM", help="fit within this distance (default 15)"
    )
    calibrate.set_defaults(verb=_calibrate)


if __name__ == "__main__":
    sys.exit(main())
