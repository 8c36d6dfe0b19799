"""The module without its panel: functions of a scene and its nodes, for scripts, other modules and batch runs. No widget.

from CalibUncertainty import CalibUncertaintyLogic
logic = CalibUncertaintyLogic()
overlays = logic.segment(slicer.mrmlScene, ctNode, "/models/Dataset001_Pelvis", outputFolder="/results")
logic.addContours(slicer.mrmlScene, overlays, ["Parotid"], outer=0.05, inner=0.95)
"""

import logging
import time
from pathlib import Path
from types import SimpleNamespace

from . import contourNode, contourSurfaces, ctVolume, overlayNodes, regionsNode, regionSurfaces, runs
from .overlays import Overlays
from .parameterNode import ALL_FOLDS, Calibration, Device, ListedBy, Pooling

POLL_SECONDS = 0.05


def segment(
    scene,
    ctNode,
    modelFolder,
    outputFolder=None,
    folds=ALL_FOLDS,
    device="auto",
    calibration="auto",
    pooling="pool_logit",
    mirroring=True,
    roiMm=15.0,
    listedBy="entropy",
    allMeasures=False,
    listedInBody=False,
    onEvent=None,
    command=None,
):
    """Segment a CT in a process of its own, wait for it, and add the layers of its Result to the scene.

    :param scene: vtkMRMLScene that the CT lies in.
    :param ctNode: scalar volume node.
    :param modelFolder: folder of a trained nnU-Net v2 model.
    :param outputFolder: the Result gets a new folder in it; None for Slicer's temporary folder.
    :param folds: "all" or numbers with commas between.
    :param device: auto, cuda, mps or cpu.
    :param calibration: auto or none.
    :param pooling: pool_logit, pool_prob, shared or member.
    :param roiMm: how far from the structures maps are computed, in mm.
    :param listedBy: the measure that the places to review are made of: entropy, mi, dae or ebcu.
    :param allMeasures: make every map, not only those that cost little.
    :param listedInBody: list places anywhere in the body, not only near the structures, with maps of all of it.
    :param onEvent: called with every `Event` of the run, and with None about every 50 ms: call
        `slicer.app.processEvents()` then where somebody is watching. What it raises ends the run.
    :param command: another program that speaks the computation's protocol, for tests.
    :return: `Overlays`; their `result` is the `Result`.
    :raises CalibUncertaintyError: if the model or the CT cannot be used, or the run fails; the message is one line.
    :raises OSError: if a file cannot be written or the process not be started.
    """
    from CalibUncertaintyLib import CalibUncertaintyError

    choices = SimpleNamespace(
        ctVolume=ctNode,
        outputFolder=Path(outputFolder or ""),
        folds=folds,
        device=Device(device),
        calibration=Calibration(calibration),
        pooling=Pooling(pooling),
        mirroring=bool(mirroring),
        roiComputedMm=float(roiMm),
        listedBy=ListedBy(listedBy),
        allMeasures=bool(allMeasures),
        listedInBody=bool(listedInBody),
    )
    problem = ctVolume.ctProblem(ctNode)
    if problem:
        raise CalibUncertaintyError(problem)
    job = runs.startRun(choices, checkedModel(modelFolder).path, command)
    return showResult(scene, waitFor(job, onEvent), ctNode)


def showResult(scene, folder, ctNode=None):
    """Add the layers of a Result folder to a scene.

    :param folder: a Result folder, made here, on a terminal or on a server.
    :param ctNode: the CT it was made from; looked for in the scene when it is None. That it has other voxels is logged.
    :return: `Overlays`.
    :raises CalibUncertaintyError: if the folder is not a finished Result.
    """
    from CalibUncertaintyLib.result import Result

    result = Result.open(folder)
    ctNode = ctNode or ctVolume.findCt(scene, result)
    if ctVolume.belongsTogether(ctNode, result) and ctVolume.hasVoxels(ctNode, result) is False:
        logging.warning("CalibUncertainty: %s is another CT than the one %s was made from", ctNode.GetName(), folder)
    with overlayNodes.undoneOnFailure(scene):
        return Overlays.create(scene, result, ctNode)


def addContours(scene, overlays, structures=None, outer=0.05, inner=0.95):
    """Add the confidence contours of some structures.

    :param overlays: `Overlays` of the Result.
    :param structures: names; None for all.
    :param outer, inner: probabilities in 0..1.
    :return: segmentation node; its segments are named "Parotid, at least 95 %".
    """
    names = tuple(overlays.structures if structures is None else structures)
    contours = contourSurfaces.contoursOf(overlays.probabilityReader(names), names, outer, inner)
    node = contourNode.addContourNode(scene, overlays)
    contourNode.fillContours(node, contours, overlays.structures)
    contourNode.saveChoice(node, (names, outer, inner))
    return node


def addRegionModels(scene, overlays):
    """Add the uncertain regions as a model for 3D views, and all structures as a grey ghost.

    :param overlays: `Overlays` of the Result.
    :return: (model of the regions, model of the structures).
    """
    return regionsNode.addRegionModels(scene, overlays, regionSurfaces.surfacesOf(overlays.result))


def checkedModel(folder):
    """A model folder that can be run, `ModelFolder`.

    :raises CalibUncertaintyError: if it cannot be.
    """
    from CalibUncertaintyLib.model.folder import ModelFolder

    model = ModelFolder.open(folder)
    model.refuse_unsupported()
    return model


def waitFor(job, onEvent=None):
    """Wait for a job. Whatever happens, no process and no copy of the CT is left.

    :param job: a running `Job`.
    :param onEvent: see `segment`.
    :return: path of what it has left.
    :raises CalibUncertaintyError: if it fails.
    """
    from CalibUncertaintyLib import CalibUncertaintyError

    try:
        while True:
            for event in job.poll():
                if onEvent is not None:
                    onEvent(event)
                if event.kind == "result":
                    return event.folder
                if event.kind == "error":
                    raise CalibUncertaintyError(event.message)
            if onEvent is not None:
                onEvent(None)
            time.sleep(POLL_SECONDS)
    finally:
        job.cancel()
        runs.tidyUp(job)
