"""Start a run: from the choices of the panel to a request and a process."""

import glob
import logging
import re
import shutil
import time
from pathlib import Path

from . import ctVolume, modelSummary, slicerCompat
from .job import Job
from .parameterNode import foldList, isChosen

CT_FILE = "ct.nrrd"


def libraryCommand():
    """Command of the real computation; the request is put behind it."""
    return [slicerCompat.pythonExecutable(), "-m", "CalibUncertaintyLib"]


def startRun(parameterNode, modelFolder, command=None):
    """Write the CT and the request, and start the process.

    :param parameterNode: the choices.
    :param modelFolder: the folder with plans.json, as `modelSummary.readModel` found it.
    :param command: another program that speaks the protocol, for tests.
    :return: a running `Job`.
    :raises ValueError: if the CT cannot be segmented or the model has gone; the message is one sentence for the user.
    :raises OSError: if a file cannot be written or the process not be started.
    """
    ctNode = parameterNode.ctVolume
    problem = ctVolume.ctProblem(ctNode) or modelSummary.goneProblem(modelFolder)
    if problem:
        raise ValueError(problem)
    folder = Path(slicerCompat.runFolder())
    ctVolume.writeCt(ctNode, folder / CT_FILE)
    request = makeRequest(parameterNode, modelFolder, folder, ctNode.GetName())
    job = Job(command or libraryCommand(), request, folder, libraryFolder())
    job.start()
    return job


def makeRequest(parameterNode, modelFolder, runFolder, ctName):
    """The request of a run, as the process reads it.

    :param runFolder: folder of this run; the result goes there unless the user has chosen another folder.
    """
    out = Path(runFolder) / "result"
    if isChosen(parameterNode.outputFolder):
        stamp = time.strftime("%Y-%m-%d %H-%M-%S")
        out = _unusedFolder(Path(parameterNode.outputFolder) / f"{_fileName(ctName)} {stamp}")
    arguments = {
        "ct": str(Path(runFolder) / CT_FILE),
        "model": str(modelFolder),
        "out": str(out),
        "folds": foldList(parameterNode.folds),
        "device": parameterNode.device.value,
        "calibration": parameterNode.calibration.value,
        "mode": parameterNode.pooling.value,
        "mirroring": parameterNode.mirroring,
        "roi_mm": parameterNode.roiComputedMm,
        "roi": "body" if parameterNode.listedInBody else "structures",
        "threshold": "stored",
        "measure": parameterNode.listedBy.value,
        "measures": "all" if parameterNode.allMeasures else "standard",
        "overwrite": False,
    }
    return {"verb": "segment", "arguments": arguments}


def tidyUp(job):
    """Remove the copy of the CT that only the process needed, and what a stopped process has left half written."""
    try:
        (job.folder / CT_FILE).unlink(missing_ok=True)
    except OSError as error:  # Windows: a process that is just ending still holds it
        logging.info("CalibUncertainty: %s is left for Slicer to remove: %s", CT_FILE, error)
    out = Path(job.request["arguments"]["out"])
    if out.parent.is_dir():
        for left in out.parent.glob(f".{glob.escape(out.name)}.*"):
            shutil.rmtree(left, ignore_errors=True)


def libraryFolder():
    """The folder to put on the process's import path."""
    # Built and installed, the package lies with Slicer's scripted modules; unbuilt, beside the module's folder.
    import CalibUncertaintyLib

    return Path(CalibUncertaintyLib.__file__).resolve().parents[1]


def _unusedFolder(path):
    """This folder, or one with a number behind its name: two CTs of a queue may have one name and one second."""
    number, unused = 2, path
    while unused.exists():
        unused, number = path.with_name(f"{path.name} {number}"), number + 1
    return unused


def _fileName(text):
    return re.sub(r"[^\w\-. ]+", "_", text).strip(" .") or "CT"
