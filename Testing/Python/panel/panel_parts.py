"""What tests of the panel do with its widgets."""


def choose(combo, text):
    """Choose the entry with this text, as a click on it does; it has to be there."""
    combo.setCurrentIndex([combo.itemText(i) for i in range(combo.count)].index(text))
