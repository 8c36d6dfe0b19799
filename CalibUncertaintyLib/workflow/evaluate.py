"""The verb `evaluate`: labelled test cases and one or several configurations of members give figures, plots and a report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import CalibUncertaintyError
from ..model.folder import ModelFolder
from ..progress import Progress
from ..volume import refuse_unusable_name
from .evaluate_case import stored_case
from .evaluate_cohort import fitted_on, run_tasks, tasks_of
from .evaluate_options import Configuration, EvaluateOptions, configurations_of
from .evaluate_report import write_report
from .labelled import LabelledCase, read_cases, refuse_doubtful_cases
from .out_place import refuse_inside_model
from .record_file import locked
from .source_case import named

TEST = "test"
REPORT_FILES = ("evaluation.json", "cases.csv", "summary.csv", "report.html")
_ENTRIES = {*REPORT_FILES, "cases"}


@dataclass(frozen=True)
class EvaluationReport:
    """What `evaluate` found: the folder, `evaluation.json`'s content, and how many cases were computed, kept and failed."""

    folder: Path
    content: Mapping
    outcomes: Mapping[tuple[str, str], Mapping]

    def count(self, status: str) -> int:
        """How many cases (each counted under each configuration) ended "ok" (computed now), "kept" (from before) or "failed"."""
        return sum(outcome["status"] == status for outcome in self.outcomes.values())

    @property
    def failed(self) -> list[tuple[str, str, str]]:
        """(configuration, case, reason) of what failed."""
        return [(*name, of["reason"]) for name, of in self.outcomes.items() if of["status"] == "failed"]


def evaluate(
    cases: str | Path | Sequence[LabelledCase], model: str | Path | ModelFolder | Sequence[str | Path | ModelFolder] | None,
    out: str | Path, *, progress: Progress | None = None, **options,
) -> EvaluationReport:  # fmt: skip
    """Segment labelled test cases, compare them with their references, and write evaluation.json, CSV tables and report.html.

    cases: a CSV or JSON list (its rows of split "test", where it names splits), or cases. model: a trained folder, or several that
    are asked together; None where every configuration names its own. out: folder; what an earlier run of the same inputs and
    options computed there is kept, and the rest is done. options: see `EvaluateOptions`.
    Cases that trained a member are refused. A case that fails is reported and left out.
    Raises CalibUncertaintyError, one line, for wrong input or when no case worked, and Cancelled when `progress` says so; the cases
    that were finished by then stay.
    """
    chosen, progress = EvaluateOptions(**options), progress or Progress()
    progress.begin()
    out = Path(os.path.abspath(out))
    configurations = configurations_of(model, chosen)
    listed = _listed(cases, chosen.split)
    _refuse_trained(listed, configurations, progress)
    _refuse_foreign(out)
    refuse_inside_model(out)
    with _only_run_into(out, progress):
        return _evaluated(listed, configurations, out, chosen, progress)


def _evaluated(
    listed: Sequence[LabelledCase],
    configurations: Sequence[Configuration],
    out: Path,
    chosen: EvaluateOptions,
    progress: Progress,
) -> EvaluationReport:
    """Compute what is missing, and write the report."""
    with progress.stage("prepare", 0.0, 0.02, "looking at models, records and cases"):
        tasks = tasks_of(listed, configurations, out, chosen)
        fitted = {item.name: fitted_on(item, [case.id for case in listed]) for item in configurations}
        for name, of in fitted.items():
            if of:
                progress.warn(
                    f"{name}: its calibration was fitted on {named(of)}, so its figures flatter it; give other cases"
                )
    with progress.stage("cases", 0.02, 0.95):
        progress.report(0.0, f"{len(listed)} cases, {len(configurations)} configurations")
        outcomes = run_tasks(tasks, chosen, progress)
    found = {
        (task["configuration"], task["case"]["id"]): content
        for task in tasks
        if (content := stored_case(Path(task["file"]), task["key"])) is not None
    }
    if not found:
        reason = next((of["reason"] for of in outcomes.values() if of["reason"]), "nothing was stored")
        raise CalibUncertaintyError(f"no case could be evaluated; the first one: {reason}")
    _warn_once(found, configurations, progress)
    with progress.stage("report", 0.95, 1.0, "figures and report"):
        content = write_report(
            out, configurations, [case.id for case in listed], tasks, found, outcomes, fitted, chosen, progress
        )
    progress.finish()
    return EvaluationReport(out, content, outcomes)


@contextmanager
def _only_run_into(out: Path, progress: Progress) -> Iterator[None]:
    """Two runs would remove each other's half-finished cases. Raises CalibUncertaintyError where another one writes there."""
    refuse_unusable_name(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CalibUncertaintyError(f"{out} cannot be made ({error.strerror}); choose another --out") from error
    remedy = "wait until that run has ended, or choose another --out"
    with locked(out, progress, 0.0, remedy, "let no other run evaluate into it at the same time"):
        yield


def _listed(cases, split: str | None) -> list[LabelledCase]:
    if not isinstance(cases, str | Path):
        return list(cases)
    if split is not None:
        return read_cases(cases, split)
    return read_cases(cases, default_split=TEST)


def _refuse_trained(cases: Sequence[LabelledCase], configurations: Sequence[Configuration], progress: Progress) -> None:
    """Refuse models that cannot be run, and cases that trained a member; each set of folds is looked at once."""
    seen = set()
    for item in configurations:
        members = item.members()
        weights = tuple(map(str, item.model)), members.folds
        if weights in seen:
            continue
        seen.add(weights)
        for folder in members.models:
            folder.refuse_unsupported()
        refuse_doubtful_cases(cases, members, progress)


def _refuse_foreign(out: Path) -> None:
    """A folder with other files is somebody's own."""
    if not out.exists():
        return
    others = sorted(entry.name for entry in out.iterdir() if entry.name not in _ENTRIES) if out.is_dir() else [""]
    if others:
        raise CalibUncertaintyError(f"{out} holds other files ({others[0] or 'it is no folder'}); choose another --out")
    # every run makes the folder before its report: without it a cases.csv is somebody's list of cases
    own = [name for name in REPORT_FILES if (out / name).exists() and not (out / "cases").is_dir()]
    if own:
        raise CalibUncertaintyError(f"{out} holds other files ({own[0]}, of no evaluation); choose another --out")


def _warn_once(found: Mapping, configurations: Sequence[Configuration], progress: Progress) -> None:
    """What segment warned of, each sentence once for each configuration, with how many cases it is of."""
    for item in configurations:
        said: dict[str, int] = {}
        for (name, _), content in found.items():
            for warning in content.get("warnings") or () if name == item.name else ():
                said[warning] = said.get(warning, 0) + 1
        if item.calibration == "none":
            said = {text: n for text, n in said.items() if "NOT CALIBRATED" not in text}
        for text, n in said.items():
            progress.warn(f"{item.name}: {text} ({n} case{'s' if n > 1 else ''})")
