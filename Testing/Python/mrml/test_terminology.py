"""What segments are called in SNOMED CT, in Slicer's own format, and what makes labels ready for DICOM."""

import json

import pytest
import slicer
import vtk
from CalibUncertaintyPanel import dicomExport, overlayNodes, reviewEditor, terminology, testing
from CalibUncertaintyPanel.mrmlTools import nodesOfClass
from CalibUncertaintyPanel.overlays import Overlays

D5 = [[j if i == 0 else (i + j) % 5 if j < 5 else 5 + (i + j) % 5 for j in range(10)] for i in range(5)]
D5 += [[(i - j) % 5 + 5 if j < 5 else (i - j) % 5 for j in range(10)] for i in range(5, 10)]
SHUFFLE = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def has_valid_check_digit(code):
    """Verhoeff's check digit, which every SNOMED CT identifier ends with (Verhoeff 1969)."""
    check = 0
    for place, digit in enumerate(reversed(code)):
        value = int(digit)
        for _ in range(place % 8):
            value = SHUFFLE[value]
        check = D5[check][value]
    return check == 0


def content():
    return json.loads(terminology.FILE.read_text(encoding="utf-8"))


def parsed(name):
    """(category, type, modifier) as Slicer's terminology logic reads our entry, each (code, meaning)."""
    entry = slicer.vtkSlicerTerminologyEntry()
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    assert logic.DeserializeTerminologyEntry(terminology.entryOf(name), entry)
    objects = entry.GetCategoryObject(), entry.GetTypeObject(), entry.GetTypeModifierObject()
    return tuple((item.GetCodeValue() or "", item.GetCodeMeaning() or "") for item in objects)


def test_the_check_itself_tells_a_wrong_digit_and_two_that_were_swapped():
    assert has_valid_check_digit("10200004")
    for wrong in ("10200005", "12000004", "10200040"):
        assert not has_valid_check_digit(wrong)


def test_every_code_is_a_whole_snomed_identifier():
    file = content()
    kinds = [kind for category in file["categories"] for kind in category["types"]]
    items = [*file["categories"], *kinds, *file["laterality"].values(), *file["unknown"].values()]
    assert len(kinds) > 60
    for item in items:
        assert has_valid_check_digit(item["code"]), item


def test_no_name_stands_for_two_things_and_no_code_has_two_types():
    plain, codes = {}, set()
    for category in content()["categories"]:
        for kind in category["types"]:
            assert kind["code"] not in codes
            codes.add(kind["code"])
            sides = [""]
            if kind["paired"]:
                sides += ["left", "right", "l", "r"]
            for name in kind["names"]:
                for side in sides:
                    for text in {f"{side} {name}", f"{name} {side}"}:
                        key = text.replace(" ", "").casefold()
                        meaning = (kind["code"], side[:1])
                        assert plain.setdefault(key, meaning) == meaning, key
    assert "liver" in plain
    assert plain["lungleft"] == plain["llung"]


@pytest.mark.parametrize(
    ("name", "type_", "modifier"),
    [
        ("liver", ("10200004", "Liver"), ("", "")),
        ("Parotid_L", ("45289007", "Parotid gland"), ("7771000", "Left")),
        ("parotid gland right", ("45289007", "Parotid gland"), ("24028007", "Right")),
        ("kidney_left", ("64033007", "Kidney"), ("7771000", "Left")),
        ("Glnd_Submand_R", ("54019009", "Submandibular gland"), ("24028007", "Right")),
        ("SpinalCord", ("2748008", "Spinal cord"), ("", "")),
        ("spinal-cord", ("2748008", "Spinal cord"), ("", "")),
        ("BRAINSTEM", ("119238007", "Brain stem"), ("", "")),
        ("heart_atrium_left", ("82471001", "Left atrium"), ("", "")),
    ],
)
def test_known_names_are_recognised_however_they_are_written(name, type_, modifier):
    assert terminology.isKnown(name)
    assert parsed(name) == (("123037004", "Anatomical Structure"), type_, modifier)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Organ",
        "Node",
        "liver lesion",
        "livers 2",
        "aorta left",
        "Parotis",
        "kidney_x",
        "GTV",
        "Leber/Milz",
        "lunge",
        "~^~",
    ],
)
def test_everything_else_is_tissue_and_never_guessed(name):
    assert not terminology.isKnown(name)
    tissue = ("85756007", "Tissue")
    assert parsed(name) == (tissue, tissue, ("", ""))


def test_slicer_writes_an_entry_as_we_do():
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    for name in ("Parotid_L", "liver", "unknown"):
        entry = slicer.vtkSlicerTerminologyEntry()
        text = terminology.entryOf(name)
        assert logic.DeserializeTerminologyEntry(text, entry)
        assert logic.SerializeTerminologyEntry(entry) == text


@pytest.fixture
def study(scene, ct):
    """The CT as the DICOM module leaves it: in a study of a patient, with the identifiers of its images."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Müller")
    study = hierarchy.CreateStudyItem(patient, "Planning CT")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(ct) or hierarchy.CreateItem(study, ct), study)
    ct.SetAttribute("DICOM.instanceUIDs", "1.2.3.1 1.2.3.2")
    return study


def named(result, **names):
    for entry in (*result.provenance["model"]["labels"], *result.provenance["maps"]["probability"]):
        entry["name"] = names.get(entry["name"], entry["name"])
    return result


def tags(node):
    name, found = slicer.vtkSegment.GetTerminologyEntryTagName(), {}
    for index in range(node.GetSegmentation().GetNumberOfSegments()):
        segment, value = node.GetSegmentation().GetNthSegment(index), vtk.reference("")
        segment.GetTag(name, value)
        found[segment.GetName()] = str(value)
    return found


def test_each_segment_says_what_it_is_and_a_saved_scene_keeps_it(scene, ct, make_result, tmp_path):
    result = named(make_result(ct), Organ="Parotid_L", Node="Zyste/links")
    overlays = Overlays.create(scene, result, ct)
    wanted = {name: terminology.entryOf(name) for name in ("Parotid_L", "Zyste/links")}
    assert tags(overlays.segmentationNode) == wanted
    assert "Parotid gland" in wanted["Parotid_L"]
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"), None)
    scene.Clear(0)
    assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    assert tags(nodesOfClass(scene, "vtkMRMLSegmentationNode")[0]) == wanted


def test_a_result_lies_in_the_study_of_its_ct(scene, ct, study, make_result):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    overlays = Overlays.create(scene, make_result(ct), ct)
    for node in overlays.nodes:
        item = hierarchy.GetItemByDataNode(node)
        assert hierarchy.GetItemAncestorAtLevel(item, "Study") == study
        assert hierarchy.GetItemParent(hierarchy.GetItemParent(item)) == study


def test_without_a_study_a_result_lies_on_top(scene, ct, make_result):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    overlays = Overlays.create(scene, make_result(ct), ct)
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(overlays.segmentationNode))
    assert hierarchy.GetItemParent(folder) == hierarchy.GetSceneItemID()


def test_a_failure_leaves_no_folder_in_the_study(scene, ct, study, make_result):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)

    def items():
        found = vtk.vtkIdList()
        hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), found, True)
        return sorted(found.GetId(index) for index in range(found.GetNumberOfIds()))

    before, result = items(), make_result(ct)

    def fail():
        with overlayNodes.undoneOnFailure(scene):
            Overlays.create(scene, result, ct)
            assert items() != before
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert items() == before


def test_labels_are_told_their_images_and_edited_ones_go_first(scene, ct, study, make_result):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    overlays = Overlays.create(scene, make_result(ct), ct)
    assert dicomExport.exportProblem(scene, ct) == ""
    node, item = dicomExport.prepareExport(scene, overlays.segmentationNode, ct)
    assert node is overlays.segmentationNode
    assert hierarchy.GetItemDataNode(item) is node
    assert hierarchy.GetItemAttribute(item, "DICOM.ReferencedInstanceUIDs") == "1.2.3.1 1.2.3.2"
    assert hierarchy.GetItemAncestorAtLevel(item, "Study") == study
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert node.GetNodeReference(role) is ct
    edited = reviewEditor.editableLabels(scene, overlays.segmentationNode, ct)
    node, item = dicomExport.prepareExport(scene, overlays.segmentationNode, ct)
    assert node is edited
    assert tags(edited) == tags(overlays.segmentationNode)
    assert hierarchy.GetItemAttribute(item, "DICOM.ReferencedInstanceUIDs") == "1.2.3.1 1.2.3.2"


def test_labels_made_before_the_ct_came_into_its_study_follow_it(scene, make_result):
    ct = testing.addPhantom(scene, "CT")
    overlays = Overlays.create(scene, make_result(ct), ct)
    assert "was not loaded from DICOM" in dicomExport.exportProblem(scene, ct)
    assert "load the CT" in dicomExport.exportProblem(scene, None)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "P"), "S")
    ct.SetAttribute("DICOM.instanceUIDs", "1.2")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(ct) or hierarchy.CreateItem(study, ct), study)
    assert dicomExport.exportProblem(scene, ct) == ""
    _node, item = dicomExport.prepareExport(scene, overlays.segmentationNode, ct)
    assert hierarchy.GetItemParent(item) == study
