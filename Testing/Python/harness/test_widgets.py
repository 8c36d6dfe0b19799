"""The imitated ctk and qMRML widgets: values, limits, signals, and the loader of .ui files."""

import pytest


@pytest.fixture
def ctk(slicer_application):
    import ctk

    return ctk


@pytest.fixture
def combo(slicer_scene):
    import slicer

    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    box.setMRMLScene(slicer_scene)
    return box


@pytest.fixture
def filled_button(ctk):
    """A collapsible button, and in it a label that is shown and one that is hidden."""
    import qt

    button = ctk.ctkCollapsibleButton("Inputs")
    layout = qt.QVBoxLayout(button)
    shown, hidden = qt.QLabel("a"), qt.QLabel("b")
    layout.addWidget(shown)
    layout.addWidget(hidden)
    hidden.hide()
    return button, shown, hidden


def test_a_slider_widget_keeps_its_value_within_its_limits(ctk):
    slider, heard = ctk.ctkSliderWidget(), []
    slider.connect("valueChanged(double)", heard.append)
    slider.minimum, slider.maximum, slider.decimals = 0.0, 0.5, 3
    slider.value = 0.125
    slider.value = 2.0
    assert (slider.value, heard) == (0.5, [0.125, 0.5])


def test_a_slider_widget_refuses_text(ctk):
    with pytest.raises(TypeError):
        ctk.ctkSliderWidget().value = "1"


def test_the_sliders_handle_moves_the_value_in_single_steps(ctk):
    slider = ctk.ctkSliderWidget()
    slider.setRange(0, 1)
    slider.singleStep = 0.25
    slider.slider().value = 3000
    assert slider.value == 0.25


def test_a_range_widget_keeps_low_below_high(ctk):
    widget = ctk.ctkRangeWidget()
    widget.setValues(20, 30)
    widget.minimumValue = 40
    assert (widget.minimumValue, widget.maximumValue) == (40, 40)


def test_a_path_edit_tells_about_changes_and_takes_text_only(ctk, tmp_path):
    edit, heard = ctk.ctkPathLineEdit(), []
    edit.currentPathChanged.connect(heard.append)
    edit.currentPath = str(tmp_path)
    assert heard == [str(tmp_path)]
    with pytest.raises(TypeError):
        edit.currentPath = tmp_path


def test_a_path_edit_browses_with_the_prepared_answer(ctk, slicer_application, tmp_path):
    edit = ctk.ctkPathLineEdit()
    edit.filters = ctk.ctkPathLineEdit.Dirs
    slicer_application.dialogs.answer(str(tmp_path))
    edit.browse()
    assert edit.currentPath == str(tmp_path)


def test_a_path_edit_begins_with_the_path_that_was_used_last(ctk, slicer_application):
    import qt

    qt.QSettings().remove("ctkPathLineEdit")
    first = ctk.ctkPathLineEdit()
    first.settingKey = "Example/Folder"
    assert first.currentPath == ""
    for path in ("/a", "/b", "/a"):
        first.currentPath = path
        first.addCurrentPathToHistory()
    heard, second = [], ctk.ctkPathLineEdit()
    second.connect("currentPathChanged(QString)", heard.append)
    second.settingKey = "Example/Folder"
    assert (second.currentPath, heard[-1]) == ("/a", "/a")
    assert [second.comboBox().itemText(row) for row in range(second.comboBox().count)] == ["/a", "/b"]
    qt.QSettings().remove("ctkPathLineEdit")


def test_a_collapsed_button_hides_its_contents_and_shows_them_again(filled_button):
    button, shown, hidden = filled_button
    button.show()
    button.collapsed = True
    assert shown.isHidden()
    assert hidden.isHidden()
    button.collapsed = False
    assert not shown.isHidden()
    assert hidden.isHidden()


def test_what_is_shown_in_a_collapsed_button_waits_and_what_is_hidden_in_it_comes_back(filled_button):
    button, shown, hidden = filled_button
    button.collapsed = True
    hidden.show()
    shown.hide()
    assert shown.isHidden()
    assert hidden.isHidden()
    button.collapsed = False
    assert not hidden.isHidden()
    assert not shown.isHidden()  # CTK did not notice: it was hidden already


def test_a_node_combo_box_follows_the_scene(combo, slicer_scene):
    heard = []
    combo.connect("currentNodeChanged(vtkMRMLNode*)", heard.append)
    first = slicer_scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "a")
    second = slicer_scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "b")
    slicer_scene.AddNewNodeByClass("vtkMRMLModelNode", "c")
    assert (combo.nodeCount(), combo.currentNode()) == (2, None)  # Slicer chooses nothing by itself
    combo.setCurrentNode(second)
    slicer_scene.RemoveNode(second)
    assert combo.currentNode() is first
    assert heard == [second, first]


def test_a_node_combo_box_with_none_starts_at_none(combo, slicer_scene):
    combo.noneEnabled = True
    node = slicer_scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "a")
    assert combo.currentNode() is None
    combo.setCurrentNode(node)
    assert combo.currentNodeID == node.GetID()


def test_a_node_combo_box_leaves_label_maps_out_when_told(combo, slicer_scene):
    combo.showChildNodeTypes = False
    slicer_scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    assert combo.nodeCount() == 0


def test_a_node_combo_box_lists_by_attribute(combo, slicer_scene):
    combo.addAttribute("vtkMRMLScalarVolumeNode", "kind", "map")
    node = slicer_scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "a")
    assert combo.nodeCount() == 0
    node.SetAttribute("kind", "map")
    assert combo.nodeFromIndex(0) is node


def ui(body):
    return f'<ui version="4.0"><class>F</class><widget class="QWidget" name="F">{body}</widget></ui>'


def test_a_ui_file_with_an_unknown_ctk_class_is_refused(slicer_application, tmp_path):
    import slicer

    path = tmp_path / "a.ui"
    path.write_text(ui('<widget class="ctkNoSuchWidget" name="x"/>'))
    with pytest.raises((NotImplementedError, RuntimeError)):
        slicer.util.loadUI(str(path))


def test_a_ui_file_with_an_unknown_property_of_a_ctk_class_is_refused(slicer_application, tmp_path):
    import slicer

    path = tmp_path / "a.ui"
    path.write_text(
        ui('<widget class="ctkSliderWidget" name="x"><property name="valu"><double>1</double></property></widget>')
    )
    with pytest.raises(AttributeError, match="valu"):
        slicer.util.loadUI(str(path))


def test_a_dialog_without_a_prepared_answer_is_an_error(slicer_application):
    import qt
    import slicer

    with pytest.raises(AssertionError, match="no answer"):
        slicer.util.confirmOkCancelDisplay("Install?")
    slicer_application.dialogs.answer(qt.QMessageBox.Cancel)
    assert slicer.util.confirmOkCancelDisplay("Install?") is False
    slicer_application.dialogs.answer(qt.QMessageBox.Ok)
    assert slicer.util.confirmOkCancelDisplay("Install?") is True


def test_messages_are_recorded_with_their_kind(slicer_application):
    import slicer

    slicer.util.errorDisplay("e", detailedText="why")
    slicer.util.warningDisplay("w")
    slicer.util.infoDisplay("i")
    kinds = [(m.kind, m.text, m.details) for m in slicer_application.dialogs.takeMessages()]
    assert kinds == [("error", "e", "why"), ("warning", "w", ""), ("information", "i", "")]
