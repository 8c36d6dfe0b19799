"""Collapsible sections that remember what is hidden in them."""

import qt


def holdContents(button):
    """Put all that a ctkCollapsibleButton holds into one widget of its own.

    Collapsing hides each child of the button. What is hidden on purpose meanwhile has been hidden already, so CTK does not notice,
    and expanding shows it. Hiding something inside the one child that is left does not concern the button.

    :param button: ctkCollapsibleButton with a layout, not shown yet.
    """
    for child in button.children():
        if child.isWidgetType():
            child.removeEventFilter(button)
    contents = qt.QWidget()
    contents.setLayout(button.layout())  # takes the widgets along
    outer = qt.QVBoxLayout(button)
    outer.setContentsMargins(0, 0, 0, 0)
    outer.addWidget(contents)


def holdContentsOfAll(ui):
    """The same for every collapsible section of a panel.

    :param ui: what `slicer.util.childWidgetVariables` gives.
    """
    for widget in list(vars(ui).values()):
        if widget.inherits("ctkCollapsibleButton"):
            holdContents(widget)
