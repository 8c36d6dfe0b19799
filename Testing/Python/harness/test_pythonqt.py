"""Each thing PythonQt does and PySide6 does not, as the stand-in imitates it."""

import pytest

pytestmark = pytest.mark.usefixtures("slicer_application")


@pytest.fixture
def qt(slicer_application):
    import qt

    return qt


def test_a_property_is_read_and_written_as_an_attribute(qt):
    button = qt.QPushButton("Apply")
    button.enabled = False
    button.text = "Run"
    assert (button.text, button.enabled, button.isEnabled()) == ("Run", False, False)


def test_calling_a_property_is_a_type_error(qt):
    with pytest.raises(TypeError, match="not callable"):
        qt.QLabel("x").text()


def test_a_property_that_a_subclass_repeats_is_an_attribute_there_too(qt):
    layout = qt.QVBoxLayout()
    layout.spacing = 3
    assert layout.spacing == 3


def test_an_unknown_attribute_on_a_qt_object_is_refused(qt):
    label = qt.QLabel("x")
    with pytest.raises(AttributeError, match="not allowed"):
        label.txt = "y"
    assert label.text == "x"


def test_a_dynamic_property_can_be_set_once_it_exists(qt):
    label = qt.QLabel("x")
    label.setProperty("kind", "a")
    label.kind = "b"
    assert label.property("kind") == "b"


def test_a_class_derived_in_python_may_have_its_own_attributes(qt):
    class Panel(qt.QWidget):
        def __init__(self):
            super().__init__()
            self.model = "a"

    panel = Panel()
    panel.model = "b"
    assert (panel.model, panel.className()) == ("b", "QWidget")


def test_a_constructor_refuses_keyword_arguments(qt):
    with pytest.raises(TypeError, match="keyword"):
        qt.QLabel(text="x")


def test_a_read_only_property_is_refused(qt):
    with pytest.raises(AttributeError, match="not writable"):
        qt.QComboBox().count = 3


def test_a_signal_connects_by_its_name_and_by_its_signature(qt):
    button, heard = qt.QPushButton("a"), []
    button.clicked.connect(lambda: heard.append("name"))
    assert button.connect("clicked()", lambda: heard.append("signature"))
    assert button.connect("clicked(bool)", lambda checked: heard.append(checked))
    button.click()
    assert sorted(map(str, heard)) == ["False", "name", "signature"]


def test_surplus_arguments_are_trimmed_to_what_the_function_takes(qt):
    class Listener:
        heard = 0

        def onClicked(self):
            self.heard += 1

    button, listener = qt.QPushButton("a"), Listener()
    button.connect("clicked(bool)", listener.onClicked)
    button.click()
    assert listener.heard == 1


def test_an_unknown_signal_prints_and_returns_false(qt, capsys):
    assert qt.QPushButton("a").connect("clickd()", print) is False
    assert "No such signal QPushButton::clickd()" in capsys.readouterr().err


def test_a_connection_by_signature_can_be_taken_back(qt):
    button, heard = qt.QPushButton("a"), []

    def listen():
        heard.append(1)

    button.connect("clicked()", listen)
    assert button.disconnect("clicked()", listen) is True
    button.click()
    assert heard == []


def test_an_overloaded_signal_is_chosen_by_its_signature(slicer_application, qt):
    process, codes = qt.QProcess(), []
    process.connect("finished(int,QProcess::ExitStatus)", lambda code, status: codes.append((code, int(status))))
    process.start("false", [])
    slicer_application.waitUntil(lambda: codes, seconds=10)
    assert codes == [(1, 0)]


def test_enumerations_are_integers(qt):
    assert int(qt.Qt.AlignLeft) == 1
    assert isinstance(qt.Qt.Checked, int)
    assert qt.QMessageBox.Ok == 0x400


def test_lists_come_back_as_tuples(qt):
    widget = qt.QWidget()
    label = qt.QLabel("x", widget)
    assert widget.children() == (label,)
    assert widget.findChildren(qt.QLabel) == (label,)


def test_names_and_class_names_are_those_of_the_object(qt):
    import slicer

    widget = qt.QWidget()
    label = qt.QLabel("x", widget)
    label.name = "ctLabel"
    assert (label.objectName, label.className()) == ("ctLabel", "QLabel")
    assert slicer.util.findChild(widget, "ctLabel") == label


def test_single_shot_is_a_static_method_and_a_property(slicer_application, qt):
    rang = []
    qt.QTimer.singleShot(0, lambda: rang.append(1))
    timer = qt.QTimer()
    timer.singleShot = True
    slicer_application.waitUntil(lambda: rang, seconds=2)
    assert timer.singleShot is True


def test_an_exception_in_a_slot_is_caught_by_the_watch(qt, slicer_watch):
    button = qt.QPushButton("a")
    button.clicked.connect(lambda: 1 / 0)
    button.click()
    assert "ZeroDivisionError" in slicer_watch.problems()[0]
    slicer_watch.forget()


def test_an_exception_in_a_vtk_observer_is_caught_by_the_watch(slicer_scene, slicer_watch):
    node = slicer_scene.AddNewNodeByClass("vtkMRMLTextNode")
    node.AddObserver("ModifiedEvent", lambda caller, event: 1 / 0)
    node.Modified()
    assert "ZeroDivisionError" in slicer_watch.problems()[0]
    slicer_watch.forget()


def test_a_vtk_error_is_caught_by_the_watch(slicer_watch):
    import vtk

    vtk.vtkImageBlend().Update()
    assert "vtkImageBlend" in slicer_watch.problems()[0]
    slicer_watch.forget()
