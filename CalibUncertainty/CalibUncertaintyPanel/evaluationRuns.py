"""Evaluate a model: from the choices of the panel to a request and a process."""

import re
import time
from pathlib import Path

from slicer.i18n import tr as _

from . import modelSummary, runs, slicerCompat
from .job import Job
from .parameterNode import EvaluationKind, foldList, isChosen

LISTS = (".csv", ".json")
REPORT_FILE, FIGURES_FILE = "report.html", "evaluation.json"
OWN_FILES = {FIGURES_FILE, REPORT_FILE, "cases.csv", "summary.csv", "cases"}


def casesProblem(path):
    """Why this cannot be a list of labelled test cases, or an empty string. Looks at names only; the computation reads the file.

    :param path: a list of cases.
    :return: one sentence for the user.
    """
    if not isChosen(path):
        return _("Choose the labelled test cases: a CSV or JSON list (id, ct, labels).")
    path = Path(path)
    if not path.is_file():
        return _("{path} is no file. Choose the list of labelled test cases: CSV or JSON.").format(path=path)
    if path.suffix.lower() not in LISTS:
        text = _("{name} is no list of cases. Choose a CSV file with the columns id, ct and labels, or JSON.")
        return text.format(name=path.name)
    return ""


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


def startEvaluation(parameterNode, summary, command=None):
    """Write the request and start the process.

    :param parameterNode: the choices.
    :param summary: `ModelSummary` of the chosen model.
    :param command: another program that speaks the protocol, for tests.
    :return: a running `Job`.
    :raises ValueError: if there is nothing to evaluate with; the message is one sentence for the user.
    :raises OSError: if a file cannot be written or the process not be started.
    """
    problem = (
        casesProblem(parameterNode.evaluationCases)
        or folderProblem(parameterNode.evaluationFolder)
        or modelSummary.goneProblem(summary.folder)
    )
    if problem:
        raise ValueError(problem)
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
        "measures": "standard",
    }
    if parameterNode.evaluationKind is EvaluationKind.CHOSEN:
        calibration = parameterNode.calibration.value
        name = "calibrated" if calibration != "none" else "uncalibrated"
        arguments["configurations"] = [{"name": name, "calibration": calibration}]
    return {"verb": "evaluate", "arguments": arguments}


def _reportFolder(parameterNode, summary, runFolder):
    if isChosen(parameterNode.evaluationFolder):
        return Path(parameterNode.evaluationFolder)
    if isChosen(parameterNode.outputFolder):
        name = re.sub(r"[^\w\-. ]+", "_", summary.name).strip(" .") or "model"
        return Path(parameterNode.outputFolder) / f"Evaluation of {name} {time.strftime('%Y-%m-%d %H-%M-%S')}"
    return runFolder / "evaluation"
