"""The report of a review: page, pictures and tables, written in the background from a Result and a CT."""

import base64
import csv
import re
from html.parser import HTMLParser

import numpy as np
import pytest


@pytest.fixture
def saved(opened, slicer_application, tmp_path):
    """Function that saves a report through the button; gives the page's path."""

    def save(name="Bericht für Müller.html"):
        path = tmp_path / name
        slicer_application.dialogs.answer(str(path))
        opened.ui.saveReportButton.click()
        slicer_application.waitUntil(lambda: not opened.review.report.running, seconds=30, what="the report")
        return path

    return save


class Page(HTMLParser):
    """Text, tables and pictures of a page; fails on an element that is not closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.rows, self.images, self.links = [], "", [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href"):
                (self.images if tag == "img" else self.links).append(value)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data.replace("\N{NO-BREAK SPACE}", " ")


def image_of(source):
    """RGB (height, width, 3) of a picture in the page, decoded by Qt."""
    import qt
    from Harness.pictures import toArray

    kind, data = source.split(",", 1)
    assert kind == "data:image/png;base64"
    image = qt.QImage.fromData(base64.b64decode(data))
    assert not image.isNull()
    return toArray(image)


def test_the_page_stands_alone_and_says_case_structures_places_and_decisions(opened, saved):
    opened.review.select(0)
    opened.ui.noteLineEdit.text = "<b>not</b> muscle & fat"
    opened.ui.wrongButton.click()
    page = Page(saved().read_text(encoding="utf-8"))
    result = opened.overlays.result
    assert page.links == []
    assert all(source.startswith("data:") for source in page.images)
    assert "Phantom CT" in page.text
    assert "Calibrated (temperature 2.03" in page.text
    assert "fake model" in page.text  # the warning of the run
    assert "<b>not</b> muscle & fat" in page.text  # as text, not as an element
    rows = {row[0]: row for row in page.rows if row}
    assert rows["Review"][1] == opened.ui.reviewProgressLabel.text
    voxel = result.segmentation.voxel_volume_ml
    for label, name in result.labels.items():
        p = result.probability(label).array.astype(np.float64)
        numbers = [float(text) for text in re.findall(r"[\d.]+", " ".join(rows[name][1:]))]
        expected = [(result.segmentation.array == label).sum() * voxel, p.sum() * voxel]
        expected += [(p >= 0.95).sum() * voxel, (p >= 0.05).sum() * voxel]
        assert numbers == pytest.approx(expected, abs=0.051, rel=0.01)
    near = result.distance.array <= 15
    mean = float(re.search(r"[\d.]+", rows["Mean entropy"][1]).group())
    assert mean == pytest.approx(result.uncertainty("entropy").array[near].mean(), abs=0.0006)
    places = [row for row in page.rows if row and row[0].isdigit()]
    assert [int(row[0]) for row in places] == [region.id for region in result.regions]
    assert places[0][-3:-1] == ["wrong", "<b>not</b> muscle & fat"]
    assert places[1][-3] == "not looked at"
    assert len(page.images) == len(result.regions)


def test_the_tables_hold_every_region_and_structure_with_all_figures(opened, saved):
    opened.review.select(1)
    opened.ui.noteLineEdit.text = 'a, "b"; c'
    opened.ui.unsureButton.click()
    page = saved()
    with page.with_name(f"{page.stem}-regions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    regions = opened.overlays.result.regions
    assert len(rows) == len(regions)
    for row, region in zip(rows, regions, strict=True):
        assert row["structure"] == region.structure
        assert float(row["volume_ml"]) == pytest.approx(region.volume_ml, rel=1e-4)
        assert float(row["peak_s_mm"]) == pytest.approx(region.peak_ras_mm[2], rel=1e-4)
    assert [row["verdict"] for row in rows[:3]] == ["", "unsure", ""]
    assert rows[1]["note"] == 'a, "b"; c'
    with page.with_name(f"{page.stem}-structures.csv").open(encoding="utf-8", newline="") as file:
        structures = list(csv.DictReader(file))
    assert [row["structure"] for row in structures] == ["Organ", "Node"]
    for row in structures:
        sure, possible = float(row["at_least_95_percent_ml"]), float(row["at_least_5_percent_ml"])
        assert sure < float(row["drawn_ml"]) < possible
        assert float(row["expected_ml"]) == pytest.approx(float(row["drawn_ml"]), rel=0.5)


def test_the_label_links_the_page_and_nothing_half_written_is_left(opened, saved):
    page = saved("plain")
    written = page.with_name("plain.html")
    assert written.is_file()
    assert sorted(path.name for path in written.parent.glob("*plain*")) == [
        "plain-regions.csv",
        "plain-structures.csv",
        "plain.html",
    ]
    assert written.as_uri() in opened.ui.reportLabel.text
    assert opened.ui.saveReportButton.enabled


def test_a_place_that_cannot_be_written_is_said_in_one_line(opened, slicer_application, tmp_path):
    slicer_application.dialogs.answer(str(tmp_path / "no such folder" / "report.html"))
    opened.ui.saveReportButton.click()
    slicer_application.waitUntil(lambda: not opened.review.report.running, seconds=30)
    (message,) = slicer_application.dialogs.takeMessages("error")
    assert "The report cannot be saved" in message.text
    assert opened.ui.saveReportButton.enabled


def test_cancelling_the_dialog_writes_nothing(opened, slicer_application):
    slicer_application.dialogs.answer("")
    opened.ui.saveReportButton.click()
    assert not opened.review.report.running


def test_without_the_ct_there_is_a_report_without_pictures(opened, saved):
    import slicer

    ct = opened.ui.ctSelector.currentNode()
    opened.ui.ctSelector.setCurrentNode(None)  # the layers know theirs
    assert Page(saved().read_text(encoding="utf-8")).images
    slicer.mrmlScene.RemoveNode(ct)
    page = Page(saved().read_text(encoding="utf-8"))
    assert page.images == []
    assert "no pictures" in page.text


def test_the_picture_of_a_region_shows_the_ct_the_outline_and_the_doubt_at_its_peak(opened, saved):
    from CalibUncertaintyPanel import palettes, reviewPictures

    page = Page(saved().read_text(encoding="utf-8"))
    side, gap = reviewPictures.PIXELS, reviewPictures.GAP
    for image, region in zip(page.images, opened.overlays.result.regions, strict=True):
        pixels = image_of(image).astype(int)
        assert pixels.shape == (side, 3 * side + 2 * gap, 3)
        panels = [pixels[:, column * (side + gap) :][:, :side] for column in range(3)]
        middle = side // 2
        colored = [np.ptp(panel, axis=-1) > 25 for panel in panels]
        # the peak's own voxel is doubtful in the second and third panel, and no structure's fill in the first
        assert colored[1][middle - 1 : middle + 1, middle - 1 : middle + 1].all()
        assert colored[2][middle - 1 : middle + 1, middle - 1 : middle + 1].all()
        outline = np.rint(255 * np.array(palettes.outlineColor(region.label - 1)))
        assert (np.abs(panels[0] - outline).max(axis=-1) <= 1).any()
    bright = panels[0][-12:-9, 10:40].min(axis=-1) == 255
    assert bright.any()  # the scale bar


def test_a_picture_lies_as_radiologists_hang_it(opened):
    """A CT whose brightness grows to the patient's left, to the back and to the head, on an oblique grid."""
    from CalibUncertaintyPanel import reviewPictures
    from CalibUncertaintyPanel.reviewExtent import boxesOf

    result = opened.overlays.result
    ct = result.segmentation
    points = ct.lps_from_index(np.moveaxis(np.indices(ct.array.shape), 0, -1))
    region = result.regions[0]
    box = boxesOf(result.folder)[region.id]
    side = reviewPictures.PIXELS

    def grey(direction):
        values = (points - np.array(region.peak_lps_mm)) @ direction
        pictures = reviewPictures.RegionPictures(result, ct.with_array(values.astype(np.float32)), (200, 0))
        image = pictures.strip(region, box)
        import qt
        from Harness.pictures import toArray

        pixels = toArray(qt.QImage.fromData(image)).astype(float)
        plain = [pixels[:, :side], pixels[:, -side:]]
        return [np.where(np.ptp(panel, axis=-1) < 3, panel[..., 0], np.nan) for panel in plain]

    axial, coronal = grey([1, 0, 0])  # to the left
    assert np.nanmean(axial[:, 150:180]) > np.nanmean(axial[:, 60:90]) + 20
    assert np.nanmean(coronal[:, 150:180]) > np.nanmean(coronal[:, 60:90]) + 20
    axial, _ = grey([0, 1, 0])  # to the back
    assert np.nanmean(axial[150:180]) > np.nanmean(axial[60:90]) + 20
    _, coronal = grey([0, 0, 1])  # to the head
    assert np.nanmean(coronal[60:90]) > np.nanmean(coronal[150:180]) + 20


def test_of_many_places_those_that_were_decided_on_and_the_first_ones_are_pictured():
    from types import SimpleNamespace

    from CalibUncertaintyPanel.reviewDecisions import NOTHING, Decision
    from CalibUncertaintyPanel.reviewReport import MOST_PICTURES, pictured

    regions = [SimpleNamespace(id=number) for number in range(1, 301)]
    decisions = {region.id: Decision("wrong") if region.id in (250, 299) else NOTHING for region in regions}
    chosen = [region.id for region in pictured(regions, decisions)]
    assert chosen == [*range(1, MOST_PICTURES - 1), 250, 299]


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (240, 732)])
def test_the_png_is_what_was_drawn(opened, shape):
    import qt
    from CalibUncertaintyPanel.reviewPictures import png
    from Harness.pictures import toArray

    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.array_equal(toArray(qt.QImage.fromData(png(pixels))), pixels)
