"""Evaluate a model: from the choices of the panel to a request and a process."""

import re
import time
from pathlib import Path

from slicer.i18n import tr as _

from . import modelSummary, runs, slicerCompat
from .casesChoice import casesProblem
from .job import Job
from .parameterNode import EvaluationKind, foldList, isChosen

REPORT_FILE, FIGURES_FILE = "report.html", "evaluation.json"
OWN_FILES = {FIGURES_FILE, REPORT_FILE, "cases.csv", "summary.csv", "cases"}


def folderProblem(path):
    """Why a report cannot go into this folder, or an empty string.

    :param path: a folder, perhaps one that is to be made, perhaps not chosen.
    """
    if not isChosen(path) or not Path(path).exists():
        return ""
    path = Path(path)
    if not path.is_dir():
        return _("{path} is no folder. Choose a folder for the report.").format(path=path)
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in OWN_FILES)
    if others:
        text = _(
            "{path} holds other files ({first}). Choose an empty folder, a new one, or that of an earlier evaluation."
        )
        return text.format(path=path, first=others[0])
    return ""


def problem(parameterNode, summary):
    """Why an evaluation cannot start with these choices, or an empty string.

    :param summary: `ModelSummary` of the chosen model.
    """
    return (
        casesProblem(parameterNode.evaluationCases)
        or comparedProblem(parameterNode)
        or folderProblem(parameterNode.evaluationFolder)
        or modelSummary.goneProblem(summary.folder)
    )


def comparedProblem(parameterNode):
    """Why what is to be compared cannot be, or an empty string. Looks at names only."""
    if parameterNode.evaluationKind is EvaluationKind.FILE:
        return _configurationsProblem(parameterNode.evaluationConfigurations)
    if parameterNode.evaluationKind is EvaluationKind.MODELS:
        if not parameterNode.evaluationModels:
            return _("Add the folder of another model to compare this one with.")
        gone = [modelSummary.goneProblem(folder) for folder in parameterNode.evaluationModels]
        return next(filter(None, gone), "")
    return ""


def _configurationsProblem(path):
    if not isChosen(path):
        return _("Choose the JSON file with the configurations to compare.")
    if not Path(path).is_file():
        return _("{path} is no file. Choose the JSON file with the configurations to compare.").format(path=path)
    return ""


def startEvaluation(parameterNode, summary, command=None):
    """Write the request and start the process.

    :param parameterNode: the choices.
    :param summary: `ModelSummary` of the chosen model.
    :param command: another program that speaks the protocol, for tests.
    :return: a running `Job`.
    :raises ValueError: if there is nothing to evaluate with; the message is one sentence for the user.
    :raises OSError: if a file cannot be written or the process not be started.
    """
    found = problem(parameterNode, summary)
    if found:
        raise ValueError(found)
    folder = Path(slicerCompat.runFolder())
    request = makeRequest(parameterNode, summary, folder)
    job = Job(command or runs.libraryCommand(), request, folder, runs.libraryFolder())
    job.start()
    return job


def makeRequest(parameterNode, summary, runFolder):
    """The request of an evaluation, as the process reads it.

    :param runFolder: folder of this run; the report goes there unless the user has chosen a folder for it, or for results.
    """
    arguments = {
        "cases": str(parameterNode.evaluationCases),
        "model": str(summary.folder),
        "out": str(_reportFolder(parameterNode, summary, Path(runFolder))),
        "folds": foldList(parameterNode.folds),
        "flips": "mean" if parameterNode.mirroring else "off",
        "device": parameterNode.device.value,
        "mode": parameterNode.pooling.value,
        "roi_mm": parameterNode.roiComputedMm,
        "roi": "body" if parameterNode.listedInBody else "structures",
        "measures": "standard",
    }
    configurations = _configurations(parameterNode, summary)
    if configurations is not None:
        arguments["configurations"] = configurations
    return {"verb": "evaluate", "arguments": arguments}


def _configurations(parameterNode, summary):
    """What is compared, a list or a file; None for what the computation does by itself."""
    calibration = parameterNode.calibration.value
    if parameterNode.evaluationKind is EvaluationKind.CHOSEN:
        return [{"name": "calibrated" if calibration != "none" else "uncalibrated", "calibration": calibration}]
    if parameterNode.evaluationKind is EvaluationKind.FILE:
        return str(parameterNode.evaluationConfigurations)
    if parameterNode.evaluationKind is EvaluationKind.MODELS:
        others = [Path(folder) for folder in parameterNode.evaluationModels]
        names = namesOf([Path(summary.folder), *others])
        first = {"name": names[0], "calibration": calibration}
        # The chosen folds are the chosen model's: another one may not have them.
        return [first] + [
            {"name": name, "model": str(folder), "folds": "all", "calibration": calibration}
            for name, folder in zip(names[1:], others, strict=True)
        ]
    return None


def namesOf(folders):
    """Short names of model folders that tell them apart: their last parts, as many as it takes; numbers where nothing does.

    :param folders: paths.
    """
    for count in range(1, 5):
        names = ["/".join(folder.parts[-count:]) for folder in folders]
        if len({name.casefold() for name in names}) == len(names):
            return names
    return [f"{number} {folder.name}" for number, folder in enumerate(folders, start=1)]


def _reportFolder(parameterNode, summary, runFolder):
    if isChosen(parameterNode.evaluationFolder):
        return Path(parameterNode.evaluationFolder)
    if isChosen(parameterNode.outputFolder):
        name = re.sub(r"[^\w\-. ]+", "_", summary.name).strip(" .") or "model"
        return Path(parameterNode.outputFolder) / f"Evaluation of {name} {time.strftime('%Y-%m-%d %H-%M-%S')}"
    return runFolder / "evaluation"
