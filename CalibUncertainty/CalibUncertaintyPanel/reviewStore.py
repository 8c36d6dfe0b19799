"""Where the decisions of a review are kept: `review.json` in the Result folder, and the scene.

The file is written aside and renamed. The scene keeps a copy, and the list of regions, on the segmentation node, so that a
saved scene has them without the folder. Of two states of a region the later one counts, wherever it was kept.
"""

import json
import logging
import os
from pathlib import Path

from slicer.i18n import tr as _

REVIEW_FILE = "review.json"
SCHEMA = "calib-uncertainty/review"
SCHEMA_VERSION = 1
DECISIONS_ATTRIBUTE = "CalibUncertainty.Review"
REGIONS_ATTRIBUTE = "CalibUncertainty.Regions"


class ReviewStore:
    """Reads and writes the decisions of one Result.

    :param decisions: `ReviewDecisions`.
    :param node: the node that keeps them in the scene.
    :param folder: the Result folder, or None where it is gone.
    """

    def __init__(self, decisions, node, folder):
        self.decisions = decisions
        self.node = node
        self.folder = Path(folder) if folder is not None else None
        self.problem = ""  # one line for the user; "" while the file is written
        self._fileIsForeign = False

    def load(self):
        """Take over what the scene and the folder hold; sets `problem` where one of them cannot be understood."""
        self.problem = ""
        text = self.node.GetAttribute(DECISIONS_ATTRIBUTE) if self.node is not None else None
        if text:
            self._take(text, _("the scene"))
        self._takeFile()
        if self.node is not None and self.decisions.toJson():
            self.node.SetAttribute(DECISIONS_ATTRIBUTE, self._text())

    def save(self):
        """Keep the decisions in the scene and, where that is possible, in the Result folder.

        What another program has stored in the file meanwhile is taken over first.

        :return: whether the file was written.
        """
        self._takeFile()
        text = self._text()
        if self.node is not None:
            self.node.SetAttribute(DECISIONS_ATTRIBUTE, text)
        if self.folder is None or self._fileIsForeign:
            self.problem = self.problem or _(
                "The Result folder is gone: decisions are kept in the scene; save the scene."
            )
            return False
        try:
            writeAside(self.folder / REVIEW_FILE, text + "\n")
        except OSError as error:
            logging.warning("CalibUncertainty: %s", error)
            self.problem = _("{folder} cannot be written ({reason}): decisions are kept in the scene; save the scene.").format(
                folder=self.folder, reason=error.strerror or error
            )  # fmt: skip
            return False
        self.problem = ""
        return True

    def _text(self):
        document = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "decisions": self.decisions.toJson()}
        return json.dumps(document, indent=1, ensure_ascii=False)

    def _takeFile(self):
        if self.folder is None:
            return
        path = self.folder / REVIEW_FILE
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            self._fileIsForeign = False
            return
        except (OSError, ValueError) as error:
            logging.warning("CalibUncertainty: %s cannot be read: %s", path, error)
            self._leaveFile(path)
            return
        self._fileIsForeign = False
        self._take(text, path)

    def _take(self, text, where):
        try:
            document = json.loads(text)
            if document["schema"] != SCHEMA or document["schema_version"] != SCHEMA_VERSION:
                raise ValueError("another schema")
            strangers = self.decisions.merge(document["decisions"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            logging.warning("CalibUncertainty: the review in %s is not understood: %s", where, error)
            if isinstance(where, Path):
                self._leaveFile(where)
            return
        if strangers:
            logging.info("CalibUncertainty: %d decisions in %s are about other regions", strangers, where)

    def _leaveFile(self, path):
        """Somebody's decisions may be in a file that is not understood: it stays as it is."""
        self._fileIsForeign = True
        self.problem = _("{file} is not understood and stays as it is: decisions are kept in the scene.").format(
            file=path
        )


def keepRegions(node, regions, explanation):
    """Keep the list of regions in the scene.

    :param regions: `Region`s in reading order.
    :param explanation: what the list holds, one sentence.
    """
    text = json.dumps(
        {"explanation": explanation, "regions": [region.to_json() for region in regions]}, ensure_ascii=False
    )
    if node.GetAttribute(REGIONS_ATTRIBUTE) != text:
        node.SetAttribute(REGIONS_ATTRIBUTE, text)


def keptRegions(node):
    """What `keepRegions` kept.

    :return: (`Region`s, explanation); an empty list where the scene holds none.
    """
    from CalibUncertaintyLib.uncertainty.regions import Region

    text = node.GetAttribute(REGIONS_ATTRIBUTE)
    if not text:
        return [], ""
    try:
        document = json.loads(text)
        return [Region.from_json(entry) for entry in document["regions"]], str(document["explanation"])
    except (ValueError, KeyError, TypeError) as error:
        logging.warning("CalibUncertainty: the regions in the scene are not understood: %s", error)
        return [], ""


def writeAside(path, text):
    """Write a text file beside its place and rename it, so that no half-written file is ever there.

    :raises OSError: if it cannot be written; nothing is left behind then, and an earlier file stays.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
