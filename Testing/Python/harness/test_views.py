"""Slice views: layers blended by the real slice logic, and pixels drawn by the real displayable managers."""

import numpy as np
import pytest


@pytest.fixture
def ct(slicer_scene):
    """A grey cube of 60 mm with a bright half; voxels of 1 mm, centre at the origin."""
    import slicer

    array = np.zeros((60, 60, 60), np.int16)
    array[:, :, 30:] = 1000
    node = slicer.util.addVolumeFromArray(array, ijkToRAS=centred(), name="ct")
    display = node.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevel(2000, 500)
    display.InterpolateOff()
    return node


@pytest.fixture
def overlay(slicer_scene):
    """Values 0 to 0.59 that rise towards the back, drawn in red."""
    import slicer

    rows = np.arange(60, dtype=np.float32)[None, :, None] / 100
    node = slicer.util.addVolumeFromArray(np.broadcast_to(rows, (60, 60, 60)).copy(), ijkToRAS=centred(), name="map")
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeRed")
    display.AutoWindowLevelOff()
    display.SetWindowLevel(0.001, -1)  # every value is the brightest red
    display.InterpolateOff()
    return node


def centred():
    matrix = np.eye(4)
    matrix[:3, 3] = -29.5
    return matrix


def show(**layers):
    import slicer

    slicer.util.setSliceViewerLayers(**layers, fit=False)
    view = slicer.app.layoutManager().sliceWidget("Red")
    view.resize((60, 60))
    view.mrmlSliceNode().SetFieldOfView(60, 60, 1)
    view.mrmlSliceNode().SetOrientationToAxial()
    view.mrmlSliceNode().JumpSliceByCentering(0, 0, 0)
    return view


def test_the_views_have_their_names_and_directions(slicer_application):
    import slicer

    manager = slicer.app.layoutManager()
    assert set(manager.sliceViewNames()) == {"Red", "Yellow", "Green"}
    directions = {name: manager.sliceWidget(name).mrmlSliceNode().GetOrientation() for name in manager.sliceViewNames()}
    assert directions == {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


def test_the_blend_of_a_ct_shows_its_two_halves(ct):
    from Harness.views import blend

    show(background=ct)
    image = blend("Red")
    assert image.shape == (60, 60, 4)
    assert (image[1:-1, 1:-1, 3] == 255).all()  # the volume ends in the middle of the outermost pixels
    left, right = image[30, 5, 0], image[30, 55, 0]  # the patient's left, where R is negative, is on the right
    assert (left, right) == (191, 63)


def test_a_threshold_hides_the_foreground_below_it_to_the_pixel(ct, overlay):
    from Harness.views import blend

    show(background=ct, foreground=overlay, foregroundOpacity=1.0)
    display = overlay.GetDisplayNode()
    display.SetLowerThreshold(0.295)
    display.SetUpperThreshold(10)
    display.ApplyThresholdOn()
    image = blend("Red").astype(int)
    red = (image[..., 0] - image[..., 1]) > 50
    anterior = image.shape[0] // 2  # the array's second axis runs to the front, the picture's rows from the front
    assert red[1:anterior, 1:-1].all()
    assert not red[anterior:].any()


def test_a_third_layer_is_blended_on_top(ct, overlay):
    from Harness.views import blend

    view = show(background=ct)
    before = blend("Red")
    view.mrmlSliceCompositeNode().SetNthLayerVolumeID(3, overlay.GetID())
    view.mrmlSliceCompositeNode().SetNthLayerOpacity(3, 0.5)
    after = blend("Red")
    assert after[..., 0].astype(int).sum() > before[..., 0].astype(int).sum()
    view.mrmlSliceCompositeNode().SetNthLayerVolumeID(3, None)


def test_a_rendered_slice_shows_the_blended_layers(ct):
    from Harness.views import blend, render_slice

    show(background=ct)
    image = render_slice("Red", size=(60, 60))
    assert image.shape == (60, 60, 3)
    assert np.abs(image[5:50, 5:55].astype(int) - blend("Red")[5:50, 5:55, :3]).max() <= 1


def test_segment_outlines_are_drawn_over_the_ct(ct, slicer_scene):
    import slicer
    from Harness.views import render_slice

    labels = np.zeros((60, 60, 60), np.uint8)
    labels[:, 20:40, 20:40] = 1
    segmentation = slicer_scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    segment = segmentation.GetSegmentation().AddEmptySegment("node", "node", (0, 1, 0))
    slicer.util.updateSegmentBinaryLabelmapFromArray(labels, segmentation, segment, ct)
    segmentation.GetDisplayNode().SetVisibility2DFill(False)
    show(background=ct)
    image = render_slice("Red", size=(240, 240)).astype(int)
    green = (image[..., 1] - image[..., 0]) > 80
    rows, columns = np.nonzero(green)
    assert rows.size > 200
    size = (rows.max() - rows.min(), columns.max() - columns.min())
    assert np.allclose(size, 80, atol=6)  # 20 mm at 4 pixels a millimetre
    assert not green[110:130, 110:130].any()  # an outline, not a filled square


def test_a_colour_legend_and_a_ruler_are_drawn(ct, overlay):
    import slicer
    from Harness.views import render_slice

    view = show(background=ct, foreground=overlay, foregroundOpacity=0.5)
    plain = render_slice("Red", size=(300, 300))
    legend = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(overlay)
    legend.SetVisibility(True)
    withLegend = render_slice("Red", size=(300, 300))
    view.mrmlSliceNode().SetRulerType(slicer.vtkMRMLAbstractViewNode.RulerTypeThin)
    withRuler = render_slice("Red", size=(300, 300))
    view.mrmlSliceNode().SetRulerType(slicer.vtkMRMLAbstractViewNode.RulerTypeNone)
    assert (np.abs(withLegend.astype(int) - plain) > 30).any(axis=-1).sum() > 300
    assert (np.abs(withRuler.astype(int) - withLegend) > 30).any(axis=-1).sum() > 20


def test_a_view_without_layers_is_black_and_has_no_blend(slicer_application):
    from Harness.views import blend, render_slice

    assert render_slice("Red", size=(60, 60)).max() == 0
    with pytest.raises(ValueError, match="shows no volume"):
        blend("Red")


def test_a_panel_and_its_slices_are_put_into_one_picture(slicer_application, tmp_path):
    import qt
    from Harness.pictures import compose, grab, toArray

    label = qt.QLabel("CT")
    label.styleSheet = "background: rgb(0, 0, 200)"
    panel = grab(label, size=(80, 100))
    red = np.zeros((40, 50, 3), np.uint8)
    red[..., 0] = 255
    whole = compose(panel, red, red, red, path=tmp_path / "a" / "panel.png", columns=2)
    pixels = toArray(qt.QImage(str(tmp_path / "a" / "panel.png")))
    assert (whole.width(), whole.height()) == (80 + 4 + 104, 100)
    assert pixels[90, 5].tolist() == [0, 0, 200]
    assert pixels[10, 90].tolist() == [255, 0, 0]
    assert pixels[50, 90].tolist() == [255, 0, 0]
