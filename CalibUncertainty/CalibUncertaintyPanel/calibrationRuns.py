"""Calibrate a model: from the choices of the panel to a request and a process."""

import logging
import os
import re
import shutil
import time
from pathlib import Path

from slicer.i18n import tr as _

from . import install, modelSummary, runs, slicerCompat
from .casesChoice import casesProblem
from .job import Job
from .parameterNode import CalibrationMethod, CalibrationWays, foldList, isChosen

WORK_FOLDER = "work"  # the logits of the cases; gigabytes, gone when the process has ended
REPORT_FILE = "report.html"


def modelProblem(folder):
    """Why a calibration cannot be stored beside a model, or an empty string.

    :param folder: the folder with plans.json.
    """
    gone = modelSummary.goneProblem(folder)
    if gone:
        return gone
    if not os.access(folder, os.W_OK):
        text = _("The calibration is stored in the model folder, and {folder} cannot be written to. Copy the model to a folder of "
                 "your own and choose that.")  # fmt: skip
        return text.format(folder=folder)
    return ""


def problem(parameterNode, summary):
    """Why a calibration cannot start with these choices, or an empty string.

    :param summary: `ModelSummary` of the chosen model.
    """
    return modelProblem(summary.folder) or casesProblem(parameterNode.calibrationCases, parameterNode.calibrationMethod)


def startCalibration(parameterNode, summary, command=None):
    """Write the request and start the process.

    :param parameterNode: the choices.
    :param summary: `ModelSummary` of the chosen model.
    :param command: another program that speaks the protocol, for tests.
    :return: a running `Job`.
    :raises ValueError: if there is nothing to calibrate with; the message is one sentence for the user.
    :raises OSError: if a file cannot be written or the process not be started.
    """
    found = problem(parameterNode, summary)
    if found:
        raise ValueError(found)
    folder = Path(slicerCompat.runFolder())
    work = folder / WORK_FOLDER
    work.mkdir()
    request = makeRequest(parameterNode, summary, folder)
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    job = Job(command or runs.libraryCommand(), request, folder, runs.libraryFolder(), environment=places)
    job.start()
    return job


def makeRequest(parameterNode, summary, runFolder):
    """The request of a calibration, as the process reads it.

    :param runFolder: folder of this run; the proof goes there unless the user has chosen a folder for results.
    """
    proof = Path(runFolder) / "proof"
    if isChosen(parameterNode.outputFolder):
        name = re.sub(r"[^\w\-. ]+", "_", summary.name).strip(" .") or "model"
        proof = Path(parameterNode.outputFolder) / f"Calibration of {name} {time.strftime('%Y-%m-%d %H-%M-%S')}"
    arguments = {
        "cases": str(parameterNode.calibrationCases),
        "model": str(summary.folder),
        "folds": foldList(parameterNode.folds),
        "flips": "mean" if parameterNode.mirroring else "off",
        "device": parameterNode.device.value,
        "mode": waysOf(parameterNode).value,
        "method": parameterNode.calibrationMethod.value,
        "allow_changed_labels": parameterNode.calibrationMayChangeLabels
        and mayChangeLabels(parameterNode.calibrationMethod),
        "roi_mm": parameterNode.calibrationRoiMm,
        "proof": str(proof),
    }
    return {"verb": "calibrate", "arguments": arguments}


def hasWays(method):
    """Whether a method can be fitted for other ways of putting folds together than averaged logits.

    :param method: `CalibrationMethod`.
    """
    return method in (CalibrationMethod.TEMPERATURE, CalibrationMethod.AUTO)


def waysOf(parameterNode):
    """The ways of putting folds together that a calibration is fitted for, `CalibrationWays`."""
    return parameterNode.calibrationWays if hasWays(parameterNode.calibrationMethod) else CalibrationWays.LOGIT


def mayChangeLabels(method):
    """Whether a method may change what is segmented.

    :param method: `CalibrationMethod`.
    """
    from CalibUncertaintyLib.workflow.applied import METHODS

    return method.value in METHODS and METHODS[method.value].preserves == "none"


def packagesOf(method):
    """Packages that a calibration by this method needs, of `install.PACKAGES`.

    :param method: `CalibrationMethod`.
    """
    from CalibUncertaintyLib.workflow.applied import METHODS

    extra = METHODS[method.value].extra if method.value in METHODS else ""
    return install.COMPUTING + install.PICTURES + ((extra,) if extra else ())


def methodInWords(method):
    """What a method does, for a tool tip.

    :param method: `CalibrationMethod`.
    """
    from CalibUncertaintyLib.workflow.applied import METHODS

    if method.value not in METHODS:
        return _(
            "Fits every method that is installed and takes, of those that change no label, the one with the least error on "
            "cases it was not fitted on. Needs two cases or more."
        )
    found = METHODS[method.value]
    needed = _("Needs the package {name}.").format(name=found.extra)
    return f"{found.description} {needed}" if found.extra else found.description


def tidyUp(job):
    """Remove the logits that a stopped process has left."""
    shutil.rmtree(job.folder / WORK_FOLDER, ignore_errors=True)
    if (job.folder / WORK_FOLDER).exists():  # Windows: a process that is just ending still holds a file
        logging.info("CalibUncertainty: %s is left for Slicer to remove", job.folder / WORK_FOLDER)


def proofPage(folder):
    """The page of a proof, or None where there is none.

    :param folder: path of the proof, perhaps not chosen.
    """
    page = Path(folder) / REPORT_FILE
    return page if isChosen(folder) and page.is_file() else None
