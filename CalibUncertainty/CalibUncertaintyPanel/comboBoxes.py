"""Combo boxes whose entries change: filled and set without telling, as if they had been so all along."""


def offer(comboBox, texts):
    """Offer these texts in place of what was offered before.

    :param texts: strings, in their order.
    """
    wasBlocked = comboBox.blockSignals(True)
    comboBox.clear()
    for text in texts:
        comboBox.addItem(text)
    comboBox.blockSignals(wasBlocked)


def choose(comboBox, index):
    """Show the entry with this index as the chosen one."""
    wasBlocked = comboBox.blockSignals(True)
    comboBox.setCurrentIndex(index)
    comboBox.blockSignals(wasBlocked)
