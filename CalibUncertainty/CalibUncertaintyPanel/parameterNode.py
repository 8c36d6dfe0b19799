"""Every choice of the panel, kept in one MRML node, so that it is saved with the scene."""

import enum
import pathlib
from typing import Annotated

from slicer import vtkMRMLModelNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

ALL_FOLDS = "all"
Percent = Annotated[float, WithinRange(0, 100)]


class Device(enum.Enum):
    """Where the network runs; the values are those of the request."""

    AUTO = "auto"
    CUDA = "cuda"
    MPS = "mps"
    CPU = "cpu"

    def label(self):
        """Text in the panel."""
        return {
            "auto": _("Automatic (GPU if there is one)"),
            "cuda": _("NVIDIA GPU"),
            "mps": _("Apple GPU"),
            "cpu": _("Processor (slow)"),
        }[self.value]


class Calibration(enum.Enum):
    """Whether the stored temperature of the model is applied."""

    AUTO = "auto"
    NONE = "none"

    def label(self):
        """Text in the panel."""
        return _("Calibrate with the model's record") if self is Calibration.AUTO else _("Do not calibrate")


class Pooling(enum.Enum):
    """How the folds are put together."""

    LOGIT = "pool_logit"
    PROBABILITY = "pool_prob"
    SHARED = "shared"
    MEMBER = "member"

    def label(self):
        """Text in the panel."""
        return {
            "pool_logit": _("Average the logits (labels as nnU-Net's)"),
            "pool_prob": _("Average the probabilities (labels may change)"),
            "shared": _("Calibrate all folds alike, then average"),
            "member": _("Calibrate each fold, then average"),
        }[self.value]


class ListedBy(enum.Enum):
    """Of which measure the places to review are made; the values are those of the request."""

    ENTROPY = "entropy"
    DISAGREEMENT = "mi"
    OFF_BORDERS = "dae"
    UNUSUAL = "ebcu"

    def label(self):
        """Text in the panel."""
        return {
            "entropy": _("Any doubt (entropy)"),
            "mi": _("Networks that contradict each other"),
            "dae": _("Doubt away from borders"),
            "ebcu": _("What is unusual at such places"),
        }[self.value]


class CalibrationWays(enum.Enum):
    """For which ways of putting folds together a calibration is fitted; the values are those of the request."""

    LOGIT = "pool_logit"
    ALL = "all"
    AUTO = "auto"

    def label(self):
        """Text in the panel."""
        return {
            "pool_logit": _("Averaged logits (nnU-Net's own labels)"),
            "all": _("Every way, to choose from"),
            "auto": _("The best one that changes no label"),
        }[self.value]


class CalibrationMethod(enum.Enum):
    """By which method a calibration is fitted; the values are those of the request."""

    TEMPERATURE = "temperature"
    AUTO = "auto"
    PLATT = "platt"
    PLATT_SLOPE = "platt_slope"
    VECTOR = "vector"
    MATRIX = "matrix"
    DIRICHLET = "dirichlet"
    ISOTONIC = "isotonic"
    CC_ORDER = "cc_order"
    CC_ARGMAX = "cc_argmax"
    AUXILIARY_CONVOLUTION = "auxiliary_convolution"
    LOCAL_TEMPERATURE = "local_temperature"

    def label(self):
        """Text in the panel."""
        return {
            "temperature": _("Temperature scaling (recommended)"),
            "auto": _("The best one that changes no label"),
            "platt": _("Platt scaling"),
            "platt_slope": _("Platt scaling without shift"),
            "vector": _("Vector scaling"),
            "matrix": _("Matrix scaling"),
            "dirichlet": _("Dirichlet calibration"),
            "isotonic": _("Isotonic regression"),
            "cc_order": _("Class-conditional scaling, order kept"),
            "cc_argmax": _("Class-conditional scaling, label kept"),
            "auxiliary_convolution": _("Auxiliary convolution"),
            "local_temperature": _("Local temperature scaling"),
        }[self.value]


class EvaluationKind(enum.Enum):
    """What an evaluation compares."""

    BOTH = "both"
    CHOSEN = "chosen"
    MODELS = "models"
    FILE = "file"

    def label(self):
        """Text in the panel."""
        return {
            "both": _("Calibrated against uncalibrated"),
            "chosen": _("Only what is chosen above"),
            "models": _("This model against others"),
            "file": _("What a file lists"),
        }[self.value]


class ThresholdBy(enum.Enum):
    """What the threshold of the shown measure is set by."""

    VALUE = "value"
    VOLUME = "volume"
    SHARE = "share"

    def label(self):
        """Text in the panel."""
        return {
            "value": _("Value"),
            "volume": _("Volume to look at"),
            "share": _("Share to look at"),
        }[self.value]


class RoiOf(enum.Enum):
    """Around which structures uncertainty is shown, or in all of the body."""

    ALL = "all"
    CHOSEN = "chosen"
    BODY = "body"

    def label(self):
        """Text in the panel."""
        return {"all": _("All structures"), "chosen": _("The chosen structure"), "body": _("The body")}[self.value]


class RoiSide(enum.Enum):
    """On which side of the surface of the structures it is shown; the values are those of the library."""

    BOTH = "both"
    INSIDE = "inside"
    OUTSIDE = "outside"

    def label(self):
        """Text in the panel."""
        return {
            "both": _("Inside and around"),
            "inside": _("Only inside"),
            "outside": _("Only around"),
        }[self.value]


class CtWindow(enum.Enum):
    """Grey-scale windows in HU: (width, level); None leaves the CT as it is."""

    SOFT_TISSUE = (400, 40)
    BRAIN = (80, 40)
    LUNG = (1500, -600)
    BONE = (2000, 400)
    AS_IS = None

    def label(self):
        """Text in the panel."""
        names = {
            CtWindow.SOFT_TISSUE: _("Soft tissue"),
            CtWindow.BRAIN: _("Brain"),
            CtWindow.LUNG: _("Lung"),
            CtWindow.BONE: _("Bone"),
            CtWindow.AS_IS: _("Window as it is"),
        }
        return names[self] if self.value is None else f"{names[self]} W{self.value[0]} L{self.value[1]}"


@parameterNodeWrapper
class CalibUncertaintyParameterNode:
    """The choices, in the order of the panel.

    folds - "all" or numbers with commas between.
    listedBy - the measure that the list of places is made of; allMeasures - make every map, not only those that cost little.
    listedInBody - it lists places anywhere in the body, of which it makes maps, not only near the structures.
    roiComputedMm - how far from the structures the run computes maps and lists regions.
    resultFolder - the folder of the Result that is shown; the three nodes below it show it.
    threshold - in the unit of the measure.
    thresholdBy - VOLUME and SHARE keep the flagged part of the region of interest below budgetMl and budgetPercent.
    roiShownMm - up to what the Result holds, which may be more than this panel lets compute.
    probabilityFloor - probabilities below this many per cent are not drawn.
    contours - thin outlines at the probabilities contourOuter and contourInner, of the chosen structure or of all.
    rawShown - the probability layer shows what the model said before it was calibrated.
    calibrationCases - labelled cases: a list, or the folder of a raw nnU-Net dataset.
    calibrationMayChangeLabels - a method that changes labels is stored, too.
    proofFolder - the proof of the last calibration, and proofOf the model folder it is of.
    evaluationCases - a list of labelled test cases; evaluationFolder - where the report goes.
    evaluationModels - folders of models that this one is compared with; evaluationConfigurations - a file that lists what is.
    evaluationShown - the folder of the evaluation whose figures are shown.
    reviewLeastChance - places whose chance to be a real error is below this are hidden; reviewKind, reviewStructure - only these
    are listed; "" lists all.
    """

    ctVolume: vtkMRMLScalarVolumeNode
    modelFolder: pathlib.Path
    folds: str = ALL_FOLDS
    device: Device = Device.AUTO
    calibration: Calibration = Calibration.AUTO
    pooling: Pooling = Pooling.LOGIT
    mirroring: bool = True
    listedBy: ListedBy = ListedBy.ENTROPY
    allMeasures: bool = False
    listedInBody: bool = False
    roiComputedMm: Annotated[float, WithinRange(1, 100)] = 15.0
    outputFolder: pathlib.Path

    calibrationCases: pathlib.Path
    calibrationWays: CalibrationWays = CalibrationWays.LOGIT
    calibrationMethod: CalibrationMethod = CalibrationMethod.TEMPERATURE
    calibrationMayChangeLabels: bool = False
    calibrationRoiMm: Annotated[float, WithinRange(1, 100)] = 15.0
    proofFolder: pathlib.Path
    proofOf: pathlib.Path

    evaluationCases: pathlib.Path
    evaluationFolder: pathlib.Path
    evaluationKind: EvaluationKind = EvaluationKind.BOTH
    evaluationModels: list[pathlib.Path]
    evaluationConfigurations: pathlib.Path
    evaluationShown: pathlib.Path

    resultFolder: pathlib.Path
    probabilityVolume: vtkMRMLScalarVolumeNode
    uncertaintyVolume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    contours: vtkMRMLSegmentationNode
    regionsModel: vtkMRMLModelNode
    structuresModel: vtkMRMLModelNode

    measure: str = "entropy"
    structure: str = ""
    threshold: Annotated[float, WithinRange(0, 20)] = 0.35
    thresholdBy: ThresholdBy = ThresholdBy.VALUE
    budgetMl: Annotated[float, WithinRange(0, 10000)] = 20.0
    budgetPercent: Percent = 5.0
    roiShownMm: Annotated[float, WithinRange(0, 1000)] = 15.0
    roiOf: RoiOf = RoiOf.ALL
    roiSide: RoiSide = RoiSide.BOTH
    probabilityFloor: Percent = 5.0
    rawShown: bool = False
    ctWindow: CtWindow = CtWindow.SOFT_TISSUE
    ctVisible: bool = True
    probabilityVisible: bool = True
    uncertaintyVisible: bool = True
    labelsVisible: bool = True
    probabilityOpacity: Percent = 40.0
    uncertaintyOpacity: Percent = 70.0
    labelsOpacity: Percent = 100.0
    legendsVisible: bool = True
    regionsIn3d: bool = False
    contoursVisible: bool = False
    contoursOfAll: bool = False
    contourOuter: Percent = 5.0
    contourInner: Percent = 95.0
    zoomToRegion: bool = True
    goOnAfterDecision: bool = False
    editInBoxOnly: bool = False
    reviewLeastChance: Percent = 0.0
    reviewKind: str = ""
    reviewStructure: str = ""


def isChosen(path):
    """Whether a path parameter has been set; an unset one reads as "."."""
    return str(path) not in ("", ".")


def foldList(text):
    """ "all", or the folds as the request wants them.

    :param text: "all" or numbers with commas between.
    """
    if text.strip() in ("", ALL_FOLDS):
        return ALL_FOLDS
    return [int(part) if part.strip().isdigit() else part.strip() for part in text.split(",") if part.strip()]
