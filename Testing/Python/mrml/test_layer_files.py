"""The shown maps as NRRD and NIfTI: voxels, place, and what is known of them; and what Slicer's own storage keeps."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from CalibUncertaintyPanel import layerFiles, testing
from CalibUncertaintyPanel.overlays import Overlays

from CalibUncertaintyLib.volume import Volume


@pytest.fixture
def overlays(scene, make_result, ijk_to_ras):
    ct = testing.addPhantom(scene, ijkToRas=ijk_to_ras)
    return Overlays.create(scene, make_result(ct), ct)


def save(overlays, path):
    return layerFiles.saveMaps(path, layerFiles.mapsOf(overlays))


def test_the_nodes_say_what_their_voxels_are(overlays):
    probability, uncertainty = overlays.probabilityNode, overlays.uncertaintyNode
    assert probability.GetName() == "Probability of Organ (calibrated)"
    for text in ("Probability of Organ", "0 to 1", "Dataset999_Fake", "temperature 2.03"):
        assert text in probability.GetDescription()
    assert "Unit: nats" in uncertainty.GetDescription()
    assert layerFiles.metadataOf(uncertainty)["CalibUncertainty.measure"] == "entropy"
    overlays.showUncertainty("conf", "Organ")
    assert "Unit: nats" not in uncertainty.GetDescription()


def test_nrrd_keeps_place_and_metadata_of_the_maps(overlays, tmp_path):
    files = save(overlays, tmp_path / "Fall Ä.nrrd")
    assert [path.name for path in files] == ["Fall Ä probability of Organ.nrrd", "Fall Ä entropy.nrrd"]
    result = overlays.result
    for path, wanted in zip(files, (result.probability("Organ"), result.uncertainty("entropy")), strict=True):
        found = Volume.read(path)
        assert np.array_equal(found.array, wanted.array)
        assert np.allclose(found.ijk_to_ras, wanted.ijk_to_ras)
    about = Volume.read(files[0]).metadata
    assert about["CalibUncertainty.kind"] == "probability"
    assert about["CalibUncertainty.structure"] == "Organ"
    assert about["CalibUncertainty.calibrated"] == "true"
    assert about["CalibUncertainty.model"] == "Dataset999_Fake"
    assert about["CalibUncertainty.label"] == "1"  # what the Result's own file says stays
    assert Volume.read(files[1]).metadata["CalibUncertainty.unit"] == "nats"


def test_beside_nifti_lies_what_it_cannot_hold(overlays, tmp_path):
    files = save(overlays, tmp_path / "case.nii.gz")
    names = [
        "case probability of Organ.nii.gz",
        "case probability of Organ.json",
        "case entropy.nii.gz",
        "case entropy.json",
    ]
    assert [path.name for path in files] == names
    image = sitk.ReadImage(str(files[0]))
    wanted = overlays.result.probability("Organ")
    assert np.array_equal(sitk.GetArrayFromImage(image), wanted.array)
    assert np.allclose(image.GetOrigin(), wanted.origin_lps, atol=1e-3)
    about = json.loads(files[3].read_text(encoding="utf-8"))
    assert about["CalibUncertainty.measure"] == "entropy"
    assert about["CalibUncertainty.unit"] == "nats"


def test_a_raw_probability_is_not_called_calibrated(scene, ct, make_result, tmp_path):
    overlays = Overlays.create(scene, make_result(ct), ct)
    overlays.showProbability("Node", raw=True)
    path = save(overlays, tmp_path / "case.nrrd")[0]
    found = Volume.read(path)
    assert found.metadata["CalibUncertainty.calibrated"] == "false"
    assert found.metadata["CalibUncertainty.raw"] == "true"
    assert np.allclose(found.array, overlays.result.raw_probability("Node").array)


def test_the_region_of_interest_that_is_shown_does_not_cut_what_is_saved(overlays, tmp_path):
    overlays.setRoiDistance(1.0)
    found = Volume.read(save(overlays, tmp_path / "case.nrrd")[1]).array
    assert np.array_equal(found, overlays.result.uncertainty("entropy").array)
    assert not np.array_equal(found, slicer.util.arrayFromVolume(overlays.uncertaintyNode))


def test_the_entropy_of_one_structure_is_named_after_it(overlays, tmp_path):
    overlays.showUncertainty("entropy_k", "Node")
    path = save(overlays, tmp_path / "case.nrrd")[1]
    assert path.name == "case entropy_k of Node.nrrd"


def test_layers_of_a_saved_scene_are_written_without_their_result(scene, ct, make_result, tmp_path):
    overlays = Overlays.create(scene, make_result(ct), ct)
    shown = testing.arrayOf(overlays.probabilityNode)
    alone = Overlays.restore(scene, *overlays.nodes)
    path = save(alone, tmp_path / "case.nrrd")[0]
    found = Volume.read(path)
    assert np.array_equal(found.array, shown)
    assert np.allclose(found.ijk_to_ras, overlays.result.probability("Organ").ijk_to_ras, atol=1e-4)
    assert found.metadata["CalibUncertainty.structure"] == "Organ"


def test_names_of_structures_cannot_leave_the_folder(scene, ct, make_result, tmp_path):
    result = make_result(ct)
    for entry in (*result.provenance["model"]["labels"], *result.provenance["maps"]["probability"]):
        entry["name"] = {"Organ": "../Leber/Milz: Ü"}.get(entry["name"], entry["name"])
    files = save(Overlays.create(scene, result, ct), tmp_path / "case.nrrd")
    assert files[0].parent == tmp_path
    assert files[0].name == "case probability of .._Leber_Milz_ Ü.nrrd"


def test_a_folder_that_is_not_there_is_told_in_one_line(overlays, tmp_path):
    from CalibUncertaintyLib import CalibUncertaintyError

    with pytest.raises(CalibUncertaintyError, match="cannot be written") as caught:
        save(overlays, tmp_path / "none" / "case.nrrd")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("storage", "keeps"), [("vtkMRMLNRRDStorageNode", True), ("vtkMRMLVolumeArchetypeStorageNode", False)]
)
def test_what_slicers_own_storage_keeps(scene, overlays, tmp_path, storage, keeps):
    """The volume's usual storage drops what a node says: that is why the maps are written here."""
    node = scene.AddNewNodeByClass(storage)
    node.SetFileName(str(tmp_path / "slicer.nrrd"))
    assert node.WriteData(overlays.probabilityNode)
    header = (tmp_path / "slicer.nrrd").read_bytes().split(b"\n\n")[0].decode()
    assert ("CalibUncertainty.Structure:=Organ" in header) == keeps


def test_a_saved_scene_keeps_descriptions(scene, ct, make_result, tmp_path):
    overlays = Overlays.create(scene, make_result(ct), ct)
    text, identifier = overlays.uncertaintyNode.GetDescription(), overlays.uncertaintyNode.GetName()
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"), None)
    scene.Clear(0)
    assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    assert scene.GetFirstNodeByName(identifier).GetDescription() == text
