"""The sample: a CT phantom and the small model that knows it, both in the extension. Nothing is downloaded."""

from pathlib import Path

from slicer.i18n import tr as _

from . import slicerCompat
from .mrmlTools import nodesOfClass

FOLDER = Path("Resources") / "DemoModel"
MODEL = Path("Dataset900_Phantom") / "nnUNetTrainer__nnUNetPlans__3d_fullres"
CT_FILE = "phantom_ct.nii.gz"
NAME = "CT phantom"
SAMPLE = "CalibUncertainty.Sample"


def sampleFolder():
    """Where model and phantom lie: beside the library, in a clone and in an installed extension."""
    import CalibUncertaintyLib

    return Path(CalibUncertaintyLib.__file__).resolve().parents[1] / FOLDER


def modelFolder():
    """The folder of the demo model."""
    return sampleFolder() / MODEL


def ctFile():
    """The file of the CT phantom."""
    return sampleFolder() / CT_FILE


def loadCt(scene):
    """The CT phantom of the scene, loaded if it is not there yet.

    :return: scalar volume node.
    :raises OSError: if the file is not there.
    :raises RuntimeError: if it cannot be read.
    """
    for node in nodesOfClass(scene, "vtkMRMLScalarVolumeNode"):
        if node.GetAttribute(SAMPLE):
            return node
    if not ctFile().is_file():
        raise FileNotFoundError(_("{file} is missing; install the extension again").format(file=ctFile()))
    node = slicerCompat.loadVolume(ctFile())
    node.SetName(NAME)
    node.SetAttribute(SAMPLE, "true")
    return node


def register(sampleDataLogic, thumbnail):
    """Offer the phantom in Slicer's Sample Data module.

    :param sampleDataLogic: the class `SampleData.SampleDataLogic`.
    :param thumbnail: path of a picture.
    """
    sampleDataLogic.registerCustomSampleDataSource(
        category=_("Calibrated Uncertainty"),
        sampleName="CalibUncertaintyPhantom",
        thumbnailFileName=str(thumbnail),
        uris=ctFile().as_uri(),
        fileNames=CT_FILE,
        nodeNames=NAME,
    )
