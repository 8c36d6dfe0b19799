"""Reports without the panel: the review of a case, its summary, and the evaluation of a model, for scripts. No widget."""

from pathlib import Path
from types import SimpleNamespace

from . import ctVolume, evaluationRuns, scripting
from .evaluationFigures import readEvaluation
from .parameterNode import ALL_FOLDS, Calibration, Device, EvaluationKind, Pooling
from .reviewDecisions import ReviewDecisions
from .reviewReport import ReportInput, saveReport
from .reviewStore import ReviewStore
from .reviewSummary import summarize

SOFT_TISSUE = (400, 40)


def decisionsOf(overlays):
    """What readers have decided on the regions of a Result, from its folder and from the scene; the later of the two counts.

    :param overlays: `Overlays` with their Result.
    :return: `ReviewDecisions`; its `toJson` is a list of plain values.
    """
    decisions = ReviewDecisions(overlays.result.regions)
    ReviewStore(decisions, overlays.segmentationNode, overlays.result.folder).load()
    return decisions


def summaryOf(overlays):
    """Volumes of all structures in mL, with their intervals, and the mean entropy: `reviewSummary.CaseSummary`."""
    return summarize(overlays.result)


def saveReviewReport(overlays, path, ctNode=None, window=SOFT_TISSUE):
    """Write the report of a case and of its review: a web page with pictures, and two tables (CSV) beside it.

    :param path: of the page.
    :param ctNode: the CT, for the pictures; there are none without it.
    :param window: (width, level) of the pictures in HU.
    :return: the files.
    :raises OSError: if a file cannot be written.
    """
    result, decisions = overlays.result, decisionsOf(overlays)
    description = str(result.provenance["ct"].get("description") or "CT")
    given = ReportInput(
        Path(result.folder),
        ctNode.GetName() if ctNode is not None else description,
        {identifier: decisions.of(identifier) for identifier in decisions.regions},
        decisions.counts(),
        ctVolume.libraryVolume(ctNode) if ctNode is not None else None,
        {},
        window,
    )
    return saveReport(path, given)


def evaluate(
    modelFolder,
    cases,
    outputFolder,
    folds=ALL_FOLDS,
    device="auto",
    pooling="pool_logit",
    mirroring=True,
    roiMm=15.0,
    listedInBody=False,
    compareUncalibrated=True,
    onEvent=None,
    command=None,
):
    """Segment labelled test cases in a process of its own, wait for it, and compare them with their labels.

    :param cases: CSV or JSON list with id, ct and labels.
    :param outputFolder: for evaluation.json, tables and report.html; that of an earlier evaluation is gone on with.
    :param listedInBody: look anywhere in the body, not only near the structures.
    :param compareUncalibrated: against the same members without calibration.
    :param onEvent: see `scripting.segment`.
    :return: content of evaluation.json; `evaluationFigures` makes rows of it.
    :raises CalibUncertaintyError: if the model cannot be used or no case works.
    :raises ValueError: if cases or folder cannot be used; the message is one sentence.
    """
    choices = SimpleNamespace(
        evaluationCases=Path(cases),
        evaluationFolder=Path(outputFolder),
        evaluationKind=EvaluationKind.BOTH if compareUncalibrated else EvaluationKind.CHOSEN,
        outputFolder=Path(),
        folds=folds,
        device=Device(device),
        calibration=Calibration.AUTO,
        pooling=Pooling(pooling),
        mirroring=bool(mirroring),
        roiComputedMm=float(roiMm),
        listedInBody=bool(listedInBody),
    )
    model = scripting.checkedModel(modelFolder)
    job = evaluationRuns.startEvaluation(choices, SimpleNamespace(folder=model.path, name=model.name), command)
    return readEvaluation(Path(scripting.waitFor(job, onEvent)).parent)
