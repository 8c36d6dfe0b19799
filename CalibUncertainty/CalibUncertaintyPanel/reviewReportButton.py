"""The button that saves a report."""


class ReviewReportButton:
    """Asks for a place, lets a thread write, and says where the report is."""

    def __init__(self, section, ui):
        self.section = section
        self.ui = ui

    def release(self):
        """Stop timer and thread."""

    def update(self):
        """Enable the button where there is something to report."""
