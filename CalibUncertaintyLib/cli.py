"""The verbs for a terminal: `calib-uncertainty segment`, `calibrate`, `info`, `check`, ...; and `run`, which the panel uses."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from .cli_answers import answers_of_calibration, answers_of_segment, calibrate_command
from .cli_evaluate import run_evaluate
from .cli_last_layer import run_last_layer
from .cli_options import parser_of
from .errors import CalibUncertaintyError, Cancelled
from .plain_json import parsed
from .progress import JsonProgress, Progress, QuietProgress, TerminalProgress

OUT_OF_MEMORY = "there is not enough memory; close other programs and run again"
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_CANCELLED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 1 refused or failed, 2 wrong usage, 130 stopped."""
    options = parser().parse_args(arguments)
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
            return options.verb(options, progress, answers) or EXIT_OK
    except (KeyboardInterrupt, Cancelled) as error:
        _say(progress, str(error) or "stopped on request; nothing was written")
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
    except OSError as error:
        if options.debug:
            traceback.print_exc()
        _say(progress, _of_a_file(error))
        return EXIT_FAILED
    except Exception as error:
        if options.debug:
            traceback.print_exc()
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
            print(f"{live}calib-uncertainty: {_on_one_line(message)}", file=sys.stderr)
    except BrokenPipeError:
        _nobody_listens()


def _nobody_listens() -> None:
    """Whoever read our output has gone; the exit's own flush must find something to write to."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - kept open until the exit


def _on_one_line(message: str) -> str:
    """A file's name may have line breaks in it."""
    return message.replace("\r", "\\r").replace("\n", "\\n")


def _of_a_file(error: OSError) -> str:
    what = error.filename if error.filename is not None else "a file"
    return f"{what} cannot be used ({error.strerror or type(error).__name__}); check the path, its disk and its permissions"


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
    ct, model = _one_or_several(options.ct), _one_or_several(options.model)
    result = segment(ct, model, options.out, progress=progress, **chosen)
    if isinstance(progress, JsonProgress):
        progress.done(str(result.folder))
        return
    for line in answers_of_segment(result, options):
        progress.done(line)


def _run(options: argparse.Namespace, progress: Progress, answers) -> None:
    """What the panel starts: a request file instead of options."""
    path = Path(options.request)
    try:
        request = parsed(path.read_text(encoding="utf-8"))
        verb, arguments = str(request["verb"]), {key: v for key, v in request["arguments"].items() if v is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CalibUncertaintyError(f"{path} is not a request (JSON with 'verb' and 'arguments')") from error
    verbs: dict[str, Callable] = {"segment": _segment, "calibrate": _calibrate, "evaluate": run_evaluate}
    if verb not in verbs:
        raise CalibUncertaintyError(f"{path} asks for '{verb}'; known are {', '.join(verbs)}")
    required = {
        "segment": {"ct", "model", "out"},
        "calibrate": {"model", "cases"},
        "evaluate": {"model", "cases", "out"},
    }[verb]
    known = required | _known_arguments(verb)
    missing, unknown = required - set(arguments), set(arguments) - known
    if missing or unknown:
        raise CalibUncertaintyError(
            f"{path}: missing {sorted(missing) or 'nothing'}, not known {sorted(unknown) or 'nothing'}"
        )
    for name in ("ct", "model", "cases", "out"):
        given = arguments.get(name, "")
        if not all(isinstance(item, str) for item in (given if isinstance(given, list) and given else [given])):
            raise CalibUncertaintyError(
                f"{path}: {name} must be a path, or for ct and model a list of paths, got {given!r}"
            )
    verbs[verb](argparse.Namespace(**{"out": None, **arguments}), progress, answers)


def _known_arguments(verb: str) -> set[str]:
    if verb == "segment":
        from .workflow.options import SegmentOptions

        return set(SegmentOptions.names())
    if verb == "evaluate":
        from .workflow.evaluate_options import EvaluateOptions

        return set(EvaluateOptions.names())
    from .workflow.calibrate import CalibrateOptions

    return {"out", *CalibrateOptions.names()}


def _calibrate(options: argparse.Namespace, progress: Progress, _) -> None:
    from .model.record import CalibrationRecord
    from .workflow.calibrate import CalibrateOptions, calibrate

    chosen = {name: getattr(options, name) for name in CalibrateOptions.names() if hasattr(options, name)}
    path, entry = calibrate(options.cases, _one_or_several(options.model), options.out, progress=progress, **chosen)
    if isinstance(progress, JsonProgress):
        progress.done(str(path))
        return
    stored = CalibrationRecord.read(path).entries
    others = [
        other
        for other in stored
        if (other.members, other.cases) == (entry.members, entry.cases) and other.mode != entry.mode
    ]
    for line in answers_of_calibration(path, [entry, *others], options):
        progress.done(line)


def _info(options: argparse.Namespace, _, answers) -> None:
    from .workflow.info import describe
    from .workflow.options import MemberOptions

    chosen = {name: getattr(options, name) for name in MemberOptions.names() if hasattr(options, name)}
    members = MemberOptions(**chosen).members_of(_one_or_several(options.model))
    lines = describe(members, options.mode, options.calibration)
    if options.calibration == "auto" and any(line.startswith("NOT CALIBRATED") for line in lines):
        lines.append(f"To calibrate: {calibrate_command(options)}")
    print("\n".join(lines), file=answers)


def _members_and_fit(options: argparse.Namespace):
    from .workflow.options import MemberOptions

    chosen = {name: getattr(options, name) for name in MemberOptions.names() if hasattr(options, name)}
    return MemberOptions(**chosen).members_of(_one_or_several(options.model))


def _check(options: argparse.Namespace, _, answers) -> int:
    from .workflow.check import check_model
    from .workflow.inputs import read_channels

    members = _members_and_fit(options)
    ct = None
    if options.ct:
        ct = read_channels(_one_or_several(options.ct), members.models[0], options.series)[0][0]
    report = check_model(
        members, options.mode, options.calibration, ct, step_size=options.step_size, precision=options.precision
    )
    lines = report.lines()
    if not report.ok and options.calibration == "auto":
        lines[1:1] = [f"To calibrate these members: {calibrate_command(options)}"]
    print("\n".join(lines), file=answers)
    return report.exit_status


def _proof(options: argparse.Namespace, progress: Progress, _) -> None:
    from .workflow.proof import write_stored_proof

    files = write_stored_proof(
        _members_and_fit(options),
        options.mode,
        options.calibration,
        Path(options.out),
        options.step_size,
        options.precision,
    )
    progress.done(str(files["report.html"]))


def _picture(options: argparse.Namespace, _, answers) -> None:
    from .volume import Volume
    from .workflow.picture import montage

    out = Path(options.out or Path(options.result) / "montage.png")
    montage(Path(options.result), Volume.read(options.ct, options.series), out)
    print(out, file=answers)


def _one_or_several(given: str | Sequence[str]) -> str | Sequence[str]:
    """A list of one is that one: what the library is told is what the user meant."""
    return given[0] if not isinstance(given, str) and len(given) == 1 else given


def parser() -> argparse.ArgumentParser:
    """The parser of the terminal."""
    return parser_of(
        {
            "segment": _segment, "calibrate": _calibrate, "evaluate": run_evaluate, "info": _info, "check": _check,
            "last-layer": run_last_layer, "proof": _proof, "picture": _picture, "run": _run,
        }
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
