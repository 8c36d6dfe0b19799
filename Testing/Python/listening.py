"""A Progress that keeps what it was warned of."""

from CalibUncertaintyLib.progress import Progress


class Listening(Progress):
    """`warnings` holds the sentences in the order in which they came."""

    def __init__(self):
        super().__init__()
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)
