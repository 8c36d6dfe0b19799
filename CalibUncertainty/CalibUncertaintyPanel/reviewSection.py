"""Review: the places of a Result, the one to look at first on top; choosing one moves all slice views to it."""

import html
import logging

import qt
import slicer
from slicer.i18n import tr as _

from . import ctVolume, reviewExtent, reviewKeys, reviewStore
from . import reviewWords as words
from .backgroundAnswer import BackgroundAnswer
from .reviewDecisions import ReviewDecisions
from .reviewEditing import ReviewEditing
from .reviewFilterSection import ReviewFilterSection
from .reviewReportButton import ReviewReportButton
from .reviewTable import ReviewTable
from .reviewVerdicts import ReviewVerdicts
from .reviewViews import ReviewViews, mostUncertainSlice, reachOf, widthFor

BOXES_DELAY_MS = 800  # after the layers are there
BOXES_INTERVAL_MS = 150


class ReviewSection:
    """The list of regions, the way through them, and the parts that decide, edit and report."""

    def __init__(self, panel, ui):
        self.panel = panel
        self.ui = ui
        self.result = None
        self.decisions = ReviewDecisions()
        self.store = reviewStore.ReviewStore(self.decisions, None, None)
        self.views = ReviewViews(panel.scene)
        self.boxes = {}
        self._boxesAnswer = BackgroundAnswer("regions")
        self._boxesTimer = qt.QTimer()
        self._boxesTimer.connect("timeout()", self._onBoxesTimer)
        self._foundIn = None
        self.table = ReviewTable(ui.regionsTable, self._onSelected)
        self.filter = ReviewFilterSection(self, ui)
        self.verdicts = ReviewVerdicts(self, ui)
        self.editing = ReviewEditing(self, ui)
        self.report = ReviewReportButton(self, ui)
        for keys, function in self._actions().items():
            panel.shortcuts.add(keys, function, whileTyping=False)
        ui.previousRegionButton.connect("clicked(bool)", self.onPrevious)
        ui.nextRegionButton.connect("clicked(bool)", self.onNext)
        ui.fitButton.connect("clicked(bool)", self.onFit)
        ui.uncertainSliceButton.connect("clicked(bool)", self.onUncertainSlice)
        self.fill(None)

    def release(self):
        """Stop timers and threads; what was decided is kept already."""
        self.leave()
        self._forgetBoxes()
        self.report.release()

    def enter(self):
        """The module is opened: what was done in Segment Editor meanwhile is seen."""
        self.editing.onReturn()
        self.verdicts.beginLook()

    def leave(self):
        """Another module is opened."""
        self.verdicts.endLook()
        self.views.unmark()

    def fill(self, result):
        """List the regions of a Result and what was decided about them; without a Result, those that the scene keeps."""
        self.verdicts.endLook()
        self._forgetBoxes()
        self.result = result
        node = self.node
        if result is not None:
            regions = list(result.regions)
            explanation = _explanation(result.provenance, regions)
        else:
            regions, explanation = reviewStore.keptRegions(node) if node is not None else ([], "")
        folder = getattr(result, "folder", None)
        self.decisions = ReviewDecisions(regions)
        self.store = reviewStore.ReviewStore(self.decisions, node, folder)
        self.store.load()
        if node is not None and result is not None:
            reviewStore.keepRegions(node, regions, explanation)
        self.filter.offer(regions)
        self.table.fill(regions, self.decisions, self.filter.chosen)
        self.filter.update()
        self.views.forget()
        self.ui.reviewLabel.setText(explanation or _("The places to look at first are listed here after a run."))
        self.verdicts.onNewRegions(folder)
        self.editing.onNewRegions()
        self.report.update()
        self._onSelected()
        if folder is not None and regions:
            self._foundIn = folder
            self._boxesTimer.start(BOXES_DELAY_MS)

    def update(self):
        """List what the filter of the parameter node lets pass."""
        self.filter.update()
        self._updateButtons()

    @property
    def node(self):
        """The node that keeps the review in the scene, or None."""
        return self.panel.overlays.segmentationNode if self.panel.overlays is not None else None

    def select(self, row):
        """Choose a row, as a click does."""
        self.table.selectRow(row)

    def boxOf(self, region):
        """The `RegionBox` around a region; estimated from its volume until it has been found. None without any grid."""
        if region.id in self.boxes:
            return self.boxes[region.id]
        grid = self.grid()
        return reviewExtent.estimatedBox(region, *grid) if grid is not None else None

    def grid(self):
        """Geometry and (z, y, x) shape of the CT, from the Result or the scene; None without either."""
        if self.result is not None:
            provenance = self.result.provenance
            return reviewExtent.ctGeometry(provenance), tuple(provenance["geometry"]["size_xyz"][::-1])
        node = self.panel.shownCt() or (
            self.panel.overlays.probabilityNode if self.panel.overlays is not None else None
        )
        if node is None or node.GetImageData() is None:
            return None
        return ctVolume.worldIjkToRas(node), tuple(node.GetImageData().GetDimensions()[::-1])

    def onNext(self, checked=None):
        """Go to the next place."""
        return self.table.step(1)

    def onPrevious(self, checked=None):
        """Go to the place before."""
        return self.table.step(-1)

    def onFit(self, checked=None):
        """Give the views back the zoom they had, or fit them to the CT."""
        if not self.views.fit():
            slicer.util.resetSliceViews()
        self._updateButtons()

    def onUncertainSlice(self, checked=None):
        """Go to the axial slice with the largest sum of the shown measure."""
        node, threshold = self.panel.overlays.uncertaintyNode, self.panel.parameterNode.threshold
        self.panel.overlays.completeFill()
        found = mostUncertainSlice(slicer.util.arrayFromVolume(node), ctVolume.worldIjkToRas(node), threshold)
        if found is None:
            self.ui.reasonLabel.setText(_("Nowhere does the uncertainty that is shown reach the threshold."))
            return
        position, voxels = found
        self.table.leave()  # a decision would be about a place that is not shown any more
        self.views.show(position)
        name = self.panel.overlays.measure(self.panel.overlays.shownMeasure).title
        text = _("The slice with the largest sum of {measure} above {threshold:.3g}: {voxels} voxels.")
        self.ui.reasonLabel.setText(_rich(text.format(measure=name, threshold=threshold, voxels=voxels)))

    def _onSelected(self):
        region = self.table.selected
        self.verdicts.endLook()
        self._updateButtons()
        self.verdicts.show(region)
        self.editing.update()
        self.ui.reasonLabel.setText(_rich(region.reason) if region is not None else "")
        chance = words.chanceSentence(region) if region is not None else ""
        self.ui.chanceLabel.setText(_rich(chance))
        self.ui.chanceLabel.setVisible(bool(chance))
        if region is None:
            return
        self.panel.chooseStructure(region.structure)
        self._goTo(region)
        self.verdicts.beginLook()

    def _goTo(self, region):
        parameterNode = self.panel.parameterNode
        zoom = parameterNode is not None and parameterNode.zoomToRegion
        box = self.boxOf(region) if zoom else None
        width = None
        if box is not None:
            width = widthFor(reachOf(region.peak_ras_mm, box.cornersRas()), *self.grid())
        self.views.show(region.peak_ras_mm, width)
        self._updateButtons()

    def _updateButtons(self):
        row, count = self.table.place
        ui = self.ui
        ui.previousRegionButton.enabled = row > 0
        ui.nextRegionButton.enabled = row + 1 < count
        ui.uncertainSliceButton.enabled = self.panel.overlays is not None
        ui.fitButton.enabled = self.panel.overlays is not None
        if not count:
            why = _("The filter hides every place.") if self.table.hidden else _("There is no place to review.")
            ui.previousRegionButton.toolTip = ui.nextRegionButton.toolTip = why
            return
        before = _("Go to the place before this one ({keys})").format(keys=reviewKeys.PREVIOUS)
        after = _("Go to the next place ({keys})").format(keys=reviewKeys.NEXT)
        ui.previousRegionButton.toolTip = before if row > 0 else _("This is the first place.")
        ui.nextRegionButton.toolTip = after if row + 1 < count else _("This is the last place.")

    def _actions(self):
        return {
            reviewKeys.NEXT: self.onNext,
            reviewKeys.PREVIOUS: self.onPrevious,
            **self.verdicts.actions,
        }

    def _onBoxesTimer(self):
        if self._foundIn is not None:  # the delay is over
            self._boxesAnswer.start(reviewExtent.boxesOf, self._foundIn)
            self._foundIn = None
            self._boxesTimer.start(BOXES_INTERVAL_MS)
            return
        answer = self._boxesAnswer.poll()
        if answer is None:
            return
        self._boxesTimer.stop()
        if answer.error is not None:
            logging.info("CalibUncertainty: the boxes of the regions are estimated: %s", answer.error)
            return
        self.boxes = answer.value

    def _forgetBoxes(self):
        self._boxesTimer.stop()
        self._boxesAnswer.stop()
        self._foundIn = None
        self.boxes = {}


def _explanation(provenance, regions):
    threshold, roi = provenance["threshold"], provenance["roi"]
    titles = {entry["measure"]: entry["title"] for entry in provenance["maps"]["uncertainty"]}
    what = _("{measure} of at least {value:.3g} {unit}").format(
        measure=titles.get(threshold["measure"], threshold["measure"]), value=threshold["value"], unit=threshold["unit"]
    )
    where = _("within {distance:g} mm of the structures").format(distance=roi["distance_mm"])
    where = _("anywhere in the body") if roi.get("reference") == "body" else where
    if not regions:
        return _("No place to review: nowhere {what}, {where}.").format(what=what, where=where)
    return _("{count} places to review: {what}, {where}, and possible misses beyond. The sliders above do not "
             "change this list.").format(count=len(regions), what=what, where=where)  # fmt: skip


def _rich(text):
    """Text for a label that takes rich text: without a tag it would show what was escaped as it stands."""
    return f"<span>{html.escape(text)}</span>" if text else ""
