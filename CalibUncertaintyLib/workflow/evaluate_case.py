"""One test case under one configuration: segment, compare with the reference, and write every figure down. Runs anywhere."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from ..errors import CalibUncertaintyError, Cancelled
from ..evaluation.localisation import LocalisationCounts
from ..plain_json import plain
from ..progress import Progress
from ..volume import Volume
from .asking import AskingOnce
from .evaluate_figures import figures_of
from .evaluate_window import CaseWindow
from .inputs import read_channels
from .map_writer import file_name
from .segment import segment
from .source_case import LabelledCase
from .source_reference import read_reference

SCHEMA, SCHEMA_VERSION = "calib-uncertainty/evaluated-case", 1
FIGURES_VERSION = 2  # of what is computed: a higher one computes every case anew


def key_of(case: LabelledCase, configuration: Mapping, options: Mapping) -> str:
    """What a case's figures depend on, as one hash: files (path, size, time), weights, calibration, options, our version.

    configuration: name, fingerprint of the members and of the calibration, options of `segment`. options: the domain and the like.
    """
    document = {
        "schema": [SCHEMA_VERSION, FIGURES_VERSION],
        "id": case.id,
        "files": [_state_of(path) for path in (*case.channels, case.labels)],
        "configuration": plain(configuration),
        "options": plain(options),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _state_of(path: Path) -> list:
    """Path, size and time of change of a file, or of each file of a DICOM folder."""
    path = Path(os.path.abspath(path))
    try:
        parts = sorted(part for part in path.iterdir() if part.is_file()) if path.is_dir() else [path]
        return [str(path), *([part.name, part.stat().st_size, part.stat().st_mtime_ns] for part in parts)]
    except OSError as error:
        raise CalibUncertaintyError(f"{path} cannot be read ({error.strerror}); check that it is there") from error


def case_file(folder: Path, case_id: str) -> Path:
    """Where the figures of a case stand; what file systems object to in the identifier is taken out, and told apart by a hash."""
    name = file_name(case_id)
    if name != case_id:
        name += f"-{hashlib.sha256(case_id.encode()).hexdigest()[:8]}"
    return folder / f"{name}.json"


def stored_case(path: Path, key: str | None = None) -> dict | None:
    """What was stored of a case, where it is whole and (with a key) of the same inputs and options; else None."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if (
        not isinstance(content, dict)
        or content.get("schema") != SCHEMA
        or content.get("schema_version") != SCHEMA_VERSION
    ):
        return None
    return content if key is None or content.get("key") == key else None


def members_folder(path: Path) -> Path:
    """Where the members' logits of a case wait for its next configuration; path: of the figures. No case has such a name."""
    return path.with_name(f".{path.stem}.members")


@contextmanager
def asking_for(tasks: Sequence[Mapping]) -> Iterator[AskingOnce | None]:
    """What tasks of one case and the same members share while they are done; None for a single one, and without room to write."""
    folder = members_folder(Path(tasks[0]["file"]))
    try:
        if len(tasks) > 1:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # said by the tasks themselves, one by one
        tasks = tasks[:1]
    if len(tasks) < 2:
        yield None
        return
    try:
        with AskingOnce(folder) as asking:
            yield asking
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def evaluate_together(tasks: Sequence[Mapping]) -> list[dict]:
    """`evaluate_case` of tasks that share case and members, one after the other; the members are asked once."""
    with asking_for(tasks) as asking:
        return [evaluate_case(task, None, asking) for task in tasks]


def evaluate_case(task: Mapping, progress: Progress | None = None, asking: AskingOnce | None = None) -> dict:
    """Compute one case under one configuration and store it; returns {"status": "ok" or "failed", "reason", "log", "seconds"}.

    task: plain values only (see `evaluate_cohort.tasks_of`), so that another process or machine can do it. A failure is said in
    one line; what was not foreseen leaves its traceback in a log file beside where the figures would be. Only being stopped is
    raised. Nothing half-written is left under the case's name. asking: shared with other tasks of the same case and members; the
    seconds that are written down are those of a task alone.
    """
    if task.get("threads"):
        import torch

        torch.set_num_threads(int(task["threads"]))
    began, path = time.perf_counter(), Path(task["file"])
    log = path.with_suffix(".log")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for stale in (path, log):
            stale.unlink(missing_ok=True)
        _compute(task, path, progress or Progress(), began, asking)
    except Cancelled:
        raise
    except CalibUncertaintyError as error:
        return {"status": "failed", "reason": str(error), "log": None, "seconds": time.perf_counter() - began}
    except Exception as error:
        with suppress(OSError):
            log.write_text(traceback.format_exc(), encoding="utf-8")
        reason = (
            f"internal error ({type(error).__name__}: {' '.join(str(error).split())[:200]}); its traceback is in {log}"
        )
        return {"status": "failed", "reason": reason, "log": str(log), "seconds": time.perf_counter() - began}
    return {"status": "ok", "reason": "", "log": None, "seconds": time.perf_counter() - began}


def _compute(task: Mapping, path: Path, progress: Progress, began: float, asking: AskingOnce | None) -> None:
    spared = asking.spared_s if asking else 0.0
    case = LabelledCase(
        task["case"]["id"],
        Path(task["case"]["ct"]),
        Path(task["case"]["labels"]),
        tuple(map(Path, task["case"]["further"])),
    )
    place = path.with_suffix("")  # a folder, for the Result and whatever is in the way of becoming one
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        channels = list(case.channels)
        result = segment(
            channels[0] if len(channels) == 1 else channels, list(task["model"]), place / "result", progress=progress,
            asking=asking, **task["segment"],
        )  # fmt: skip
        from ..model.folder import ModelFolder

        model = ModelFolder.open(task["model"][0])
        ct = read_channels(channels if len(channels) > 1 else channels[0], model)[0][0]
        truth = read_reference(case, ct, model, bool(task["resample_labels"]))
        window = CaseWindow.of(result, truth, model, float(task["roi_mm"]))
        figures = figures_of(window, place, task["roi_reference"])
        _write_counts(path.with_suffix(".npz"), figures.pop("counts"))
        _write_picture(path.with_suffix(".png"), window, ct)
        document = {
            "schema": SCHEMA, "schema_version": SCHEMA_VERSION, "key": task["key"], "case": case.id,
            "configuration": task["configuration"], "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": time.perf_counter() - began + (asking.spared_s - spared if asking else 0.0),
            "result": str(place / "result") if task["keep_results"] else None,
            **_about(result.provenance), "figures": figures,
        }  # fmt: skip
        written_whole(path, (json.dumps(plain(document), allow_nan=False) + "\n").encode())
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    if not task["keep_results"]:
        shutil.rmtree(place, ignore_errors=True)


def _about(provenance: Mapping) -> dict:
    """What a report says of a run: calibration, members, warnings, geometry."""
    return {
        "calibration": {key: provenance["calibration"].get(key) for key in ("calibrated", "mode", "method", "summary", "reason")},
        "members": len(provenance["members"]), "warnings": provenance["warnings"], "left_out": provenance.get("left_out"),
        "geometry": {key: provenance["geometry"][key] for key in ("size_xyz", "spacing_xyz_mm")},
        "changed_labels": provenance["changed_labels"], "versions": provenance["versions"],
    }  # fmt: skip


def written_whole(path: Path, content: bytes) -> None:
    """Write a file aside and rename it into place. Raises CalibUncertaintyError where that cannot be done."""
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        aside.write_bytes(content)
        os.replace(aside, path)
    except OSError as error:
        raise CalibUncertaintyError(
            f"{path} cannot be written ({error.strerror}); free space or choose another --out"
        ) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _write_counts(path: Path, counts: Mapping[tuple[str, str], LocalisationCounts]) -> None:
    """Tables of every measure and domain, only the values that occur: what pooled figures are made of."""
    arrays = {}
    for (measure, domain), found in counts.items():
        codes = np.flatnonzero(found.table.any(axis=(1, 2, 3)))
        arrays[f"{measure}|{domain}|codes"] = codes.astype(np.int32)
        arrays[f"{measure}|{domain}|cells"] = found.table[codes]
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    written_whole(path, stream.getvalue())


def read_counts(path: Path) -> dict[tuple[str, str], LocalisationCounts]:
    """What `evaluate_case` stored of a case, by (measure, domain); empty where the file is not there or damaged."""
    found: dict[tuple[str, str], LocalisationCounts] = {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            for name in stored.files:
                measure, domain, part = name.split("|")
                if part == "codes":
                    counts = found[measure, domain] = LocalisationCounts()
                    counts.table[stored[name]] = stored[f"{measure}|{domain}|cells"]
    except (OSError, ValueError, KeyError):
        return {}
    return found


def _write_picture(path: Path, window: CaseWindow, ct: Volume) -> None:
    from .evaluate_case_picture import case_picture

    png = case_picture(window, ct)
    if png is None:
        path.unlink(missing_ok=True)
    else:
        written_whole(path, png)
