"""A question that takes seconds, asked in a thread, so that Slicer stays usable; its answer is fetched by a timer."""

import threading
from dataclasses import dataclass

from .threadTurns import TURNS


@dataclass(frozen=True)
class Answer:
    """What the function has returned, or the exception that it has raised."""

    value: object = None
    error: Exception = None


class BackgroundAnswer:
    """`start` a function, then `poll` until it gives the answer. A newer start makes older ones void."""

    def __init__(self, name):
        """
        :param name: of the thread, for whoever looks at a list of them.
        """
        self._name = name
        self._answers = {}
        self._latest = 0

    def start(self, function, *arguments):
        """Begin. The function must touch neither Qt nor the scene."""
        self._latest += 1
        self._answers.clear()
        thread = threading.Thread(
            target=self._run,
            args=(self._latest, function, arguments),
            name=f"CalibUncertainty-{self._name}",
            daemon=True,
        )  # pythonqt: ok, it gets its turns
        thread.start()
        TURNS.give(thread)

    def stop(self):
        """Forget what is under way."""
        self._latest += 1
        self._answers.clear()

    def poll(self):
        """The `Answer` to the latest question once it is there, once; otherwise None."""
        return self._answers.pop(self._latest, None)

    def _run(self, number, function, arguments):
        try:
            answer = Answer(value=function(*arguments))
        except Exception as error:  # in a thread nobody else would hear of it
            answer = Answer(error=error)
        if number == self._latest:
            self._answers[number] = answer
