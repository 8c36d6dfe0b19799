"""The line below the Run button that says what the run will take; once it runs, in the words of the computation itself."""

import logging

import qt
from slicer.i18n import tr as _

from . import runEstimate
from .backgroundAnswer import BackgroundAnswer
from .parameterNode import foldList


class EstimateSection:
    """Asks in a thread whenever CT, model, folds, mirroring or device are other ones."""

    def __init__(self, panel, ui):
        self.panel = panel
        self.ui = ui
        self._asked = None
        self._sentence = ""
        self._answer = BackgroundAnswer("estimate")
        self._timer = qt.QTimer()
        self._timer.setInterval(100)
        self._timer.connect("timeout()", self._onTimer)
        ui.estimateLabel.hide()

    def release(self):
        """Stop timer and thread."""
        self._timer.stop()
        self._answer.stop()

    def update(self):
        """Show the estimate of the run that could be started now."""
        if self.panel.run.running:
            return  # what the computation says is better
        if self.panel.inputs.problem():
            self._forget()
            return
        parameterNode = self.panel.parameterNode
        choice = (
            parameterNode.ctVolume.GetID(),
            parameterNode.ctVolume.GetImageData().GetMTime(),
            self.panel.inputs.summary.folder,
            str(foldList(parameterNode.folds)),
            parameterNode.mirroring,
            parameterNode.device.value,
            parameterNode.listedInBody,
        )
        if choice == self._asked:
            self._show(self._sentence)
            return
        self._asked, self._sentence = choice, ""
        folds = foldList(parameterNode.folds)
        self._answer.start(
            runEstimate.estimateSentence, runEstimate.ctGrid(parameterNode.ctVolume), choice[2], folds, *choice[4:]
        )
        self._timer.start()

    def tell(self, sentence):
        """Show what the computation says of itself."""
        self._show(sentence)

    def _onTimer(self):
        answer = self._answer.poll()
        if answer is None:
            return
        self._timer.stop()
        if answer.error is not None:  # the run itself will say what is wrong; an estimate is no reason to keep from it
            logging.info("CalibUncertainty: no estimate: %s", answer.error)
            return
        self._sentence = _("Estimate: {sentence}.").format(sentence=answer.value)
        if not self.panel.run.running:
            self._show(self._sentence)

    def _forget(self):
        self.release()
        self._asked, self._sentence = None, ""
        self._show("")

    def _show(self, sentence):
        self.ui.estimateLabel.setText(sentence)
        self.ui.estimateLabel.setVisible(bool(sentence))
