"""Decisions on the chosen region: correct, wrong or unsure, a note, undo; the progress; the log of those who want one."""

import logging

import qt
import slicer
from slicer.i18n import tr as _

from . import reviewKeys as keys
from . import reviewWords as words
from .reviewDecisions import CORRECT, UNSURE, WRONG
from .reviewLog import ReviewLog

REVIEWER_SETTING = "CalibUncertainty/Reviewer"
LOG_SETTING = "CalibUncertainty/ReviewLog"


class ReviewVerdicts:
    """The buttons below the table. The decisions and where they are kept are the section's."""

    def __init__(self, section, ui):
        self.section = section
        self.ui = ui
        self.log = ReviewLog()
        self._region = None
        self._buttons = {CORRECT: ui.correctButton, WRONG: ui.wrongButton, UNSURE: ui.unsureButton}
        for verdict, button in self._buttons.items():
            button.connect("clicked(bool)", lambda checked=None, verdict=verdict: self.decide(verdict))
        ui.undoDecisionButton.connect("clicked(bool)", self.onUndo)
        ui.redoDecisionButton.connect("clicked(bool)", self.onRedo)
        ui.noteLineEdit.connect("editingFinished()", self.takeNote)
        ui.noteLineEdit.connect("returnPressed()", self._onNoteEnded)
        ui.reviewerLineEdit.text = slicer.util.settingsValue(REVIEWER_SETTING, "")
        ui.reviewerLineEdit.connect("editingFinished()", self._onReviewer)
        ui.reviewLogCheckBox.checked = slicer.util.settingsValue(LOG_SETTING, False, converter=slicer.util.toBool)
        ui.reviewLogCheckBox.connect("toggled(bool)", self._onLogToggled)

    @property
    def actions(self):
        """What the keys do: {key sequence: function}."""
        return {
            keys.CORRECT: lambda: self.decide(CORRECT),
            keys.WRONG: lambda: self.decide(WRONG),
            keys.UNSURE: lambda: self.decide(UNSURE),
            keys.UNDO: self.onUndo,
            keys.REDO: self.onRedo,
        }

    def onNewRegions(self, folder):
        """Other regions are listed.

        :param folder: their Result folder, or None.
        """
        self._region = None
        self.log = ReviewLog(folder)
        self._updateProgress()

    def show(self, region):
        """Show the decision on this region; None: no region is chosen."""
        self._region = region
        decision = self.section.decisions.of(region.id) if region is not None else None
        for verdict, button in self._buttons.items():
            button.enabled = region is not None
            button.checked = decision is not None and decision.verdict == verdict
        self.ui.noteLineEdit.enabled = region is not None
        self.ui.noteLineEdit.text = decision.note if decision is not None else ""
        self.ui.undoDecisionButton.enabled = self.section.decisions.canUndo
        self.ui.redoDecisionButton.enabled = self.section.decisions.canRedo

    def decide(self, verdict):
        """Mark the chosen region; without one nothing happens."""
        if self._region is None:
            return
        regionId, note = self._region.id, self.ui.noteLineEdit.text.strip()
        changed = self.section.decisions.change(regionId, verdict=verdict, note=note, reviewer=self._reviewer)
        if changed:
            self._keep(regionId)
        self.show(self._region)
        if self.ui.goOnCheckBox.checked:
            self.section.onNext()

    def noteEdited(self, regionId, voxels):
        """A region was edited in Segment Editor: that is a decision, too.

        :param voxels: how many have another label than the model gave them.
        """
        if self.section.decisions.change(regionId, edited=voxels, reviewer=self._reviewer):
            self._keep(regionId)
            self.show(self._region)

    def takeNote(self):
        """Keep the note as it stands."""
        region, note = self._region, self.ui.noteLineEdit.text.strip()
        if region is None or note == self.section.decisions.of(region.id).note:
            return
        self.section.decisions.change(region.id, note=note, reviewer=self._reviewer)
        self._keep(region.id)
        self.show(region)

    def _onNoteEnded(self):
        """The note is written: the keys are for the list again."""
        self.ui.regionsTable.setFocus()

    def onUndo(self, checked=None):
        """Take the last decision back and go to its region."""
        self.takeNote()
        self._goTo(self.section.decisions.undo())

    def onRedo(self, checked=None):
        """Decide again what was taken back, and go to its region."""
        self._goTo(self.section.decisions.redo())

    def beginLook(self):
        """The chosen region is before the reader's eyes from now on."""
        self.log.enabled = self.ui.reviewLogCheckBox.checked
        self.log.begin(self._region)

    def endLook(self):
        """It is not any more; a note that was begun is kept."""
        self.takeNote()
        if self._region is None:
            return
        try:
            self.log.end(self.section.decisions.of(self._region.id))
        except OSError as error:
            logging.warning("CalibUncertainty: %s", error)
            self.log.folder = None
            self._say(_("The log cannot be written ({reason}); it is not kept.").format(reason=error.strerror or error))

    def _goTo(self, regionId):
        if regionId is None:
            return
        self._keep(regionId)
        self._region = None  # what the note field holds now is of another region or another time
        self.section.table.select(regionId)
        self.section.filter.updateSentence()  # it may have been hidden
        self.show(self.section.table.selected)

    def _keep(self, regionId):
        self.section.store.save()
        self.section.table.updateDecision(regionId)
        self._updateProgress()

    def _updateProgress(self):
        counts = self.section.decisions.counts()
        bar = self.ui.reviewProgressBar
        bar.setVisible(counts["regions"] > 0)
        bar.setMaximum(max(counts["regions"], 1))
        bar.setValue(counts["seen"])
        self.ui.reviewProgressLabel.setVisible(counts["regions"] > 0)
        self.ui.reviewProgressLabel.setText(words.progress(counts))
        self.section.filter.updateSentence()
        self._say(self.section.store.problem)

    def _say(self, text):
        self.ui.reviewProblemLabel.setText(text)
        self.ui.reviewProblemLabel.setVisible(bool(text))

    @property
    def _reviewer(self):
        return self.ui.reviewerLineEdit.text.strip()

    def _onReviewer(self):
        qt.QSettings().setValue(REVIEWER_SETTING, self._reviewer)

    def _onLogToggled(self, checked):
        qt.QSettings().setValue(LOG_SETTING, bool(checked))
        self.beginLook()
