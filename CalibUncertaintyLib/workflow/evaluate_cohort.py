"""All cases under all configurations: what has been computed already is kept, the rest is done here or on a Dask cluster."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..model.fold_honesty import in_common
from ..model.record import CalibrationRecord
from ..model.record_match import computing
from ..progress import Progress
from .applied import AppliedCalibration, calibration_of
from .evaluate_case import (
    asking_for,
    case_file,
    evaluate_case,
    evaluate_together,
    key_of,
    members_folder,
    stored_case,
)
from .evaluate_options import Configuration, EvaluateOptions
from .source_case import LabelledCase

INSTALL_DASK = (
    "several workers need Dask (pip install 'distributed>=2023.5', or calib-uncertainty[evaluate]); or take --workers 1"
)
_POLL_SECONDS = 0.5
CONNECT_TIMEOUT = "20s"


def tasks_of(
    cases: Sequence[LabelledCase], configurations: Sequence[Configuration], out: Path, options: EvaluateOptions
) -> list[dict]:
    """One task for each case and configuration, all of a case together; plain values, paths absolute."""
    found = []
    hashed = {item.name: _fingerprint(item) for item in configurations}
    of_figures = {
        "roi_mm": float(options.roi_mm),
        "roi_reference": options.place,
        "resample": options.resample_labels,
    }
    for case in cases:
        for item in configurations:
            described = {"name": item.name, "members": hashed[item.name], "segment": _that_matter(item.options)}
            path = case_file(out / "cases" / item.folder, case.id)
            found.append(
                {
                    "case": {
                        "id": case.id, "ct": os.path.abspath(case.ct), "labels": os.path.abspath(case.labels),
                        "further": [os.path.abspath(further) for further in case.further],
                    },
                    "configuration": item.name, "model": list(item.model), "segment": dict(item.options), "file": str(path),
                    "key": key_of(case, described, of_figures), "roi_mm": float(options.roi_mm),
                    "roi_reference": options.place, "resample_labels": options.resample_labels,
                    "keep_results": options.keep_results, "threads": None, "asked": _asked(item),
                }
            )  # fmt: skip
    return found


def _fingerprint(item: Configuration) -> dict:
    """The weights, and what is in the record that applies to them; raises for a record that was asked for and does not fit."""
    fingerprint, applied = _applied(item)
    record = Path(applied.record).read_bytes() if applied.calibrated else None
    return fingerprint | {"record": record and hashlib.sha256(record).hexdigest()}


def _applied(item: Configuration) -> tuple[dict, AppliedCalibration]:
    """A configuration's fingerprint, and the calibration that `segment` will apply."""
    members, options = item.members(), item.options
    step, precision = float(options["step_size"]), str(options["precision"])
    applied = calibration_of(members, options["mode"], item.calibration, members.models[0].heads, step, precision)
    return members.fingerprint() | computing(step, precision), applied


def fitted_on(item: Configuration, case_ids: Sequence[str]) -> list[str]:
    """Those of the cases that the calibration which is applied was fitted on: its figures flatter it there."""
    fingerprint, applied = _applied(item)
    if not applied.calibrated:
        return []
    entry, _ = CalibrationRecord.read(applied.record).find(fingerprint, item.options["mode"], item.members().mirroring)
    return in_common(case_ids, entry.cases) if entry is not None else []


def _that_matter(options: Mapping) -> dict:
    """The options that figures depend on: not where they are computed, and not the record's path."""
    return {
        key: value for key, value in options.items() if key not in ("device", "calibration", "trainers", "previous")
    }


def _asked(item: Configuration) -> str:
    """Who is asked and how, as one string: configurations with an equal one differ in nothing but what is made of the answers."""
    asked = {key: value for key, value in item.options.items() if key not in ("mode", "calibration")}
    return json.dumps([list(item.model), asked], sort_keys=True)


def is_finished(task: Mapping) -> bool:
    """Whether the task's figures are there, of the same inputs and options, with the Result where that is to be kept."""
    content = stored_case(Path(task["file"]), task["key"])
    if content is None:
        return False
    return not task["keep_results"] or (bool(content.get("result")) and Path(content["result"]).is_dir())


def run_tasks(tasks: Sequence[Mapping], options: EvaluateOptions, progress: Progress) -> dict[tuple[str, str], dict]:
    """Do every task that is not finished; returns by (configuration, case) {"status": "ok", "failed" or "kept", "reason", ...}.

    Stopping it leaves the finished cases as they are. Raises Cancelled where `progress` says so.
    """
    done = {}
    waiting = []
    for task in tasks:
        shutil.rmtree(members_folder(Path(task["file"])), ignore_errors=True)  # of a run that was killed
        if not options.overwrite and is_finished(task):
            done[_name(task)] = {"status": "kept", "reason": "", "log": None, "seconds": 0.0}
        else:
            waiting.append(dict(task))
    if not waiting:
        return done
    groups = _groups(waiting)
    if options.workers == 1 and options.scheduler is None:
        outcomes = _here(groups, progress)
    else:
        outcomes = _on_dask(groups, options, progress)
    with closing(outcomes):
        for count, (task, outcome) in enumerate(outcomes, start=1):
            done[_name(task)] = outcome
            if outcome["status"] == "failed":
                progress.warn(f"{task['case']['id']}, {task['configuration']}: {outcome['reason']} (skipped)")
            progress.report(count / len(waiting), f"{count} of {len(waiting)} done")
    return done


def _groups(tasks: Sequence[dict]) -> list[list[dict]]:
    """Tasks of the same case and members together: one prediction does for all of them."""
    found: dict[tuple[str, str], list[dict]] = {}
    for task in tasks:
        found.setdefault((task["case"]["id"], task["asked"]), []).append(task)
    return list(found.values())


def _name(task: Mapping) -> tuple[str, str]:
    return task["configuration"], task["case"]["id"]


class _OfCase(Progress):
    """One case's run as a part of the whole's present stage. What it warns of is in its figures, and said once for all cases."""

    def __init__(self, whole: Progress, start: float, stop: float, title: str) -> None:
        super().__init__()
        self._whole, self._from, self._to, self._title = whole, start, stop, title

    def show(self, message: str) -> None:
        self._whole.report(
            self._from + self.fraction * (self._to - self._from), f"{self._title}: {message or self.stage_name}"
        )


def _here(groups: Sequence[Sequence[Mapping]], progress: Progress) -> Iterator[tuple[Mapping, dict]]:
    index, total = 0, sum(map(len, groups))
    for group in groups:
        with asking_for(group) as asking:
            for task in group:
                title = f"{task['case']['id']}, {task['configuration']} ({index + 1} of {total})"
                heard = _OfCase(progress, index / total, (index + 1) / total, title)
                yield task, evaluate_case(task, heard, asking)
                index += 1


def _on_dask(
    groups: Sequence[Sequence[dict]], options: EvaluateOptions, progress: Progress
) -> Iterator[tuple[Mapping, dict]]:
    with _client(options) as client:
        cores = os.cpu_count() or 1
        if options.scheduler is None:
            for task in (task for group in groups for task in group):
                task["threads"] = max(1, cores // options.workers)
        # pure=False: a rerun of the same task is a new one; nothing is retried, a rerun resumes
        futures = {client.submit(evaluate_together, group, pure=False, retries=0): group for group in groups}
        try:
            yield from _as_they_end(client, futures, progress)
        finally:
            with suppress(Exception):
                client.cancel(list(futures))


def _as_they_end(client, futures: Mapping, progress: Progress) -> Iterator[tuple[Mapping, dict]]:
    from distributed import wait

    left, total = dict(futures), sum(map(len, futures.values()))
    while left:
        ended = ()
        with suppress(TimeoutError), client.as_current():
            ended = wait(list(left), timeout=_POLL_SECONDS, return_when="FIRST_COMPLETED").done
        progress.report(1.0 - sum(map(len, left.values())) / total)  # asks whether to stop
        for future in ended:
            group = left.pop(future)
            try:
                outcomes = future.result()
            except Exception as error:  # the worker's end, in whatever form
                shutil.rmtree(members_folder(Path(group[0]["file"])), ignore_errors=True)
                outcomes = [_lost(task, error) for task in group]
            future.release()
            yield from zip(group, outcomes, strict=True)


def _lost(task: Mapping, error: BaseException) -> dict:
    """A case whose worker ended before it could answer: killed for memory, most often. What it left of a Result is removed.

    One that was stored already is not lost: its worker was killed by a later case.
    """
    if is_finished(task):
        return {"status": "ok", "reason": "", "log": None, "seconds": 0.0}
    shutil.rmtree(Path(task["file"]).with_suffix(""), ignore_errors=True)
    killed = type(error).__name__ in ("KilledWorker", "CancelledError", "FutureCancelledError")
    reason = "its worker was killed, perhaps for want of memory; take fewer workers" if killed else (
        f"its worker failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    )  # fmt: skip
    return {"status": "failed", "reason": reason, "log": None, "seconds": 0.0}


@contextmanager
def _client(options: EvaluateOptions) -> Iterator:
    """A client of the cluster that was asked for: a given address, or processes of this machine."""
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise CalibUncertaintyError(INSTALL_DASK) from error
    if options.scheduler is not None:
        try:
            client = Client(options.scheduler, timeout=CONNECT_TIMEOUT, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise CalibUncertaintyError(
                f"no Dask scheduler answers at {options.scheduler}; start one and its workers, or leave --scheduler out"
            ) from error
        with _closing(client.close):
            yield client
        return
    settings = {
        "distributed.scheduler.allowed-failures": 0,  # a case that kills its worker would kill the next one, too
        "distributed.scheduler.worker-saturation": 1.0,  # so that no other case is lost with it
        "distributed.worker.memory.terminate": False,
        "distributed.worker.memory.pause": False,
    }
    with dask.config.set(settings):
        cluster = LocalCluster(
            n_workers=options.workers, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=None,
            silence_logs="ERROR",
        )  # fmt: skip
        with _closing(cluster.close), Client(cluster, set_as_default=False) as client:
            yield client


@contextmanager
def _closing(close: Callable[[], object]) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(Exception):
            close()
