"""What the library raises when something that a person can mend is wrong."""


class CalibUncertaintyError(Exception):
    """A failure in one line: what is wrong, where, and what to do about it. Never shown with a traceback."""


class Cancelled(CalibUncertaintyError):
    """The user stopped the run; nothing that looks like a result is left behind."""
