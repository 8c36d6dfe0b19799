"""The layers side by side: each view its own layers and legend, on the slice that was looked at, and back again."""

import numpy as np
import pytest


@pytest.fixture
def views(finished, slicer_application):
    """The panel in the layout side by side, with the three views that Slicer makes for it; and back afterwards."""
    import slicer
    from CalibUncertaintyPanel import layouts
    from Harness.views import SliceView

    manager = slicer.app.layoutManager()
    before = manager.layout
    made = {}

    def show():
        finished.ui.sideBySideButton.click()
        for name in (layouts.CT_VIEW, layouts.PROBABILITY_VIEW, layouts.UNCERTAINTY_VIEW):
            made[name] = made.get(name) or SliceView(name, slicer_application.core, manager.mrmlSliceLogics())
            made[name].resize((300, 300))
        slicer_application.processEvents()
        return list(made.values())

    yield show
    manager.setLayout(before)
    for view in made.values():
        composite, node = view.mrmlSliceCompositeNode(), view.mrmlSliceNode()
        manager.mrmlSliceLogics().RemoveItem(view.sliceLogic())
        view._group.SetMRMLDisplayableNode(None)
        view.sliceLogic().SetMRMLScene(None)
        for each in (composite, node):
            slicer.mrmlScene.RemoveNode(each)
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        composite.SetLinkedControl(False)


def shows(view):
    composite = view.mrmlSliceCompositeNode()
    return composite.GetForegroundVolumeID(), composite.GetNthLayerVolumeID(3)


def colourful(image):
    return int((image.max(axis=-1).astype(int) - image.min(axis=-1) > 40).sum())


def test_each_view_has_its_own_layers_and_all_have_the_ct_and_follow_each_other(finished, views):
    ct, probability, uncertainty = views()
    layers = finished.overlays
    assert shows(ct) == (None, None)
    assert shows(probability) == (layers.probabilityNode.GetID(), None)
    assert shows(uncertainty) == (None, layers.uncertaintyNode.GetID())
    for view in (ct, probability, uncertainty):
        assert view.mrmlSliceCompositeNode().GetBackgroundVolumeID() == finished.parameterNode.ctVolume.GetID()
        assert view.mrmlSliceCompositeNode().GetLinkedControl()
    finished.ui.uncertaintyEyeButton.click()
    assert shows(uncertainty) == (None, None)
    finished.ui.uncertaintyEyeButton.click()


def test_legends_and_colours_are_drawn_only_where_their_layer_is(finished, views):
    finished.ui.labelsEyeButton.click()
    finished.ui.thresholdSlider.value = 0.2
    ct, probability, uncertainty = (view.render() for view in views())
    assert colourful(ct) == 0
    assert colourful(probability) > 100
    assert colourful(uncertainty) > 100
    right = np.s_[60:200, -60:]
    assert uncertainty[right].max(axis=-1).mean() > ct[right].max(axis=-1).mean() + 10  # its legend, and nobody else's


def test_the_views_show_the_slice_that_was_looked_at(finished, views):
    import slicer

    finished.review.select(0)
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    for view in views():
        matrix = slicer.util.arrayFromVTKMatrix(view.mrmlSliceNode().GetSliceToRAS())
        assert np.allclose(matrix, slicer.util.arrayFromVTKMatrix(red.GetSliceToRAS()))
        assert view.mrmlSliceNode().GetFieldOfView()[1] == pytest.approx(red.GetFieldOfView()[1])


def test_a_second_press_brings_the_layout_before_back_with_the_legend_in_every_view(finished, views):
    import slicer

    manager = slicer.app.layoutManager()
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    views()
    assert finished.ui.sideBySideButton.checked
    finished.ui.sideBySideButton.click()
    assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
    assert not finished.ui.sideBySideButton.checked
    assert shows(manager.sliceWidget("Red")) == (
        finished.overlays.probabilityNode.GetID(), finished.overlays.uncertaintyNode.GetID()
    )  # fmt: skip


def test_another_layout_chosen_in_slicer_is_seen(finished, views):
    import slicer

    views()
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView)
    finished.update()
    assert not finished.ui.sideBySideButton.checked
