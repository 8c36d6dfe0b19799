"""Collapsible sections: what is hidden while they are collapsed is not there when they are expanded."""


def test_what_is_hidden_while_its_section_is_collapsed_stays_hidden(panel):
    label, section = panel.ui.layersEmptyLabel, panel.ui.layersCollapsibleButton
    label.setVisible(True)
    section.collapsed = True
    label.setVisible(False)
    section.collapsed = False
    assert label.isHidden()
    label.setVisible(True)
    assert not label.isHidden()


def test_what_is_shown_while_its_section_is_collapsed_is_there_when_it_is_expanded(panel):
    bar, section = panel.ui.calibrationProgressBar, panel.ui.calibrateCollapsibleButton
    section.collapsed = True
    bar.show()
    assert not bar.isVisible()
    section.collapsed = False
    assert not bar.isHidden()
    bar.hide()


def test_every_section_holds_one_widget_and_keeps_its_form(panel):
    import qt

    sections = [widget for widget in vars(panel.ui).values() if widget.inherits("ctkCollapsibleButton")]
    assert len(sections) >= 9
    for section in sections:
        assert len([child for child in section.children() if child.isWidgetType()]) == 1
    assert isinstance(panel.ui.ctSelector.parentWidget().layout(), qt.QFormLayout)
