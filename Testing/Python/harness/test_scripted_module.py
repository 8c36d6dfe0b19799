"""A module in the idioms of Slicer's template: loading, .ui, typed parameter node both ways, enter, exit, reload, scene."""

import pathlib

import pytest


@pytest.fixture
def ct(slicer_scene):
    return slicer_scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "ct")


def values(node):
    return {name: node.GetParameter(name) for name in node.GetParameterNames()}


def test_the_module_says_who_it_is(example_module):
    import slicer

    module = slicer.modules.examplemodule
    assert (module.name, module.title, module.categories) == ("ExampleModule", "Example", ("Segmentation",))
    assert slicer.util.modulePath("ExampleModule").endswith("ExampleModule.py")
    assert slicer.util.getModuleWidget("ExampleModule") is example_module


def test_a_module_cannot_invent_attributes_of_its_parent(example_module):
    import slicer

    with pytest.raises(AttributeError):
        slicer.modules.ExampleModuleInstance.parent.kategories = []


def test_the_widgets_show_the_defaults(example_module):
    ui = example_module.ui
    assert (ui.measure.currentText, ui.threshold.value, ui.distance.value) == ("Margin", 0.25, 15.0)
    assert (ui.members.value, ui.outlines.checked, ui.details.checked, ui.note.text) == (3, True, False, "none")
    assert (ui.threshold.minimum, ui.threshold.maximum, ui.members.maximum) == (0.0, 1.0, 5)


def test_a_widget_writes_its_parameter(example_module, ct, tmp_path):
    ui, node = example_module.ui, example_module._parameterNode
    ui.ct.setCurrentNode(ct)
    ui.measure.currentIndex = 0
    ui.threshold.value = 0.5
    ui.distance.value = 7.5
    ui.members.value = 5
    ui.outlines.click()
    ui.details.click()
    ui.note.text = "n"
    ui.model.currentPath = str(tmp_path)
    assert node.ct is ct
    assert (node.measure.value, node.threshold, node.distance, node.members) == ("entropy", 0.5, 7.5, 5)
    assert (node.outlines, node.details, node.note, node.model) == (False, True, "n", tmp_path)


def test_a_parameter_writes_its_widget(example_module, ct):
    ui, node = example_module.ui, example_module._parameterNode
    node.ct = ct
    node.threshold = 0.75
    node.measure = type(node.measure).ENTROPY
    node.outlines = False
    node.note = "x"
    node.model = pathlib.Path("/a/b")
    assert ui.ct.currentNode() is ct
    assert (ui.threshold.value, ui.measure.currentText, ui.outlines.checked) == (0.75, "Entropy", False)
    assert (ui.note.text, ui.model.currentPath) == ("x", "/a/b")


def test_values_lie_in_the_node_as_slicer_writes_them(example_module, ct):
    node = example_module._parameterNode
    node.ct = ct
    node.folds = [2, 3]
    held = values(node.parameterNode)
    assert (held["threshold"], held["measure"], held["outlines"], held["ct"]) == ("0.25", "MARGIN", "True", "")
    assert (held["folds.len"], held["folds.0"], held["folds.1"], held["segmentation.1"]) == ("2", "2", "3", "True")
    assert node.parameterNode.GetNodeReference("ct") is ct


def test_an_optional_node_is_none_then_a_node_then_none(example_module, slicer_scene):
    node = example_module._parameterNode
    segmentation = slicer_scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert node.segmentation is None
    node.segmentation = segmentation
    assert node.segmentation is segmentation
    assert example_module.ui.segmentation.currentNode() is segmentation
    node.segmentation = None
    assert node.segmentation is None


def test_a_list_writes_itself_back_when_it_changes(example_module):
    node = example_module._parameterNode
    node.names.append("liver")
    node.folds += [4]
    assert node.names == ["liver"]
    assert node.parameterNode.GetParameter("folds.len") == "3"


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("threshold", 1.5, ValueError),
        ("threshold", "0.5", TypeError),
        ("members", 2.5, TypeError),
        ("outlines", 1, TypeError),
        ("note", None, ValueError),
        ("model", "/a", TypeError),
        ("folds", ["a"], TypeError),
        ("measure", "entropy", TypeError),
    ],
)
def test_a_wrong_value_is_refused_and_the_old_one_stays(example_module, name, value, error):
    node = example_module._parameterNode
    before = getattr(node, name)
    with pytest.raises(error):
        setattr(node, name, value)
    assert getattr(node, name) == before


def test_the_apply_button_waits_for_a_ct(example_module, ct):
    assert example_module.ui.applyButton.enabled is False
    example_module._parameterNode.ct = ct
    assert example_module.ui.applyButton.enabled is True


def test_a_failure_is_shown_with_its_cause(example_module, ct, slicer_application, slicer_watch):
    example_module._parameterNode.ct = ct
    example_module.ui.applyButton.click()
    (message,) = slicer_application.dialogs.takeMessages("error")
    assert message.text == "Failed to compute results.\n\ncannot process ct"
    assert "ValueError" in message.details
    assert len(slicer_watch.problems()) == 1  # tryWithErrorDisplay raises again, and Qt swallows it: so does Slicer
    slicer_watch.forget()


def test_leaving_and_entering_disconnects_and_connects_the_panel(example_module, slicer_application):
    node = example_module._parameterNode
    slicer_application.leaveModule()
    node.threshold = 0.5
    assert example_module.ui.threshold.value == 0.25
    slicer_application.enterModule("ExampleModule")
    assert example_module.ui.threshold.value == 0.5
    assert example_module.calls == ["enter", "exit", "enter"]
    assert example_module.parent.isEntered


def test_closing_the_scene_gives_a_fresh_parameter_node(example_module, ct, slicer_scene):
    example_module._parameterNode.ct = ct
    example_module._parameterNode.threshold = 0.5
    slicer_scene.Clear(0)
    assert (example_module._parameterNode.ct, example_module.ui.threshold.value) == (None, 0.25)
    assert example_module.ui.applyButton.enabled is False


def test_choices_are_saved_with_the_scene_and_come_back(example_module, slicer_scene, tmp_path):
    import numpy as np
    import slicer

    ct = slicer.util.addVolumeFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5), name="ct")
    example_module._parameterNode.ct = ct
    example_module._parameterNode.threshold = 0.625
    example_module._parameterNode.folds = [3]
    path = tmp_path / "scene.mrb"
    assert slicer.util.saveScene(str(path))
    slicer_scene.Clear(0)
    slicer.util.loadScene(str(path))
    example_module.initializeParameterNode()
    node = example_module._parameterNode
    assert (node.ct.GetName(), node.threshold, node.folds) == ("ct", 0.625, [3])
    assert example_module.ui.threshold.value == 0.625
    assert np.array_equal(slicer.util.arrayFromVolume(node.ct).ravel(), np.arange(60))


def test_reloading_makes_a_new_panel_and_cleans_the_old_one(example_module):
    import slicer

    slicer.util.reloadScriptedModule("ExampleModule")
    assert slicer.modules.ExampleModuleWidget is not example_module
    assert example_module.calls[-1] == "cleanup"
    assert slicer.modules.ExampleModuleWidget.ui.threshold.value == 0.25


def test_the_modules_own_test_is_registered_and_runs(example_module):
    import sys

    import slicer

    slicer.selfTests["ExampleModule"]()
    assert sys.modules["ExampleModule"].ExampleModuleTest.ran == 1


def test_an_unknown_type_of_parameter_is_refused(slicer_application):
    from slicer.parameterNodeWrapper import parameterNodeWrapper

    with pytest.raises(Exception, match="serializer"):

        @parameterNodeWrapper
        class Bad:
            thing: complex


def test_a_slider_needs_a_bounded_number(slicer_application, slicer_scene):
    import ctk
    from slicer.parameterNodeWrapper import parameterNodeWrapper

    @parameterNodeWrapper
    class Unbounded:
        threshold: float = 0.5

    node = Unbounded(slicer_scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))
    with pytest.raises(RuntimeError, match="unbounded"):
        node.connectParametersToGui({"threshold": ctk.ctkSliderWidget()})


def test_a_widget_subclass_finds_no_connector(slicer_application, slicer_scene):
    import qt
    from slicer.parameterNodeWrapper import parameterNodeWrapper

    class MyCheckBox(qt.QCheckBox):
        pass

    @parameterNodeWrapper
    class Flags:
        on: bool = True

    node = Flags(slicer_scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))
    with pytest.raises(RuntimeError, match="Unable to create GUI connector"):
        node.connectParametersToGui({"on": MyCheckBox()})
