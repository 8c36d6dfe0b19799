"""What a structure is in SNOMED CT, for segments that leave Slicer as DICOM. Exact, known names only; neither Qt nor the scene."""

import functools
import json
import re
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "Resources" / "Terminology.json"
NO_REGION = "Anatomic codes - DICOM master list~^^~^^"  # the types that are used name the anatomy themselves
SCHEME = "SCT"


def entryOf(name):
    """The terminology entry of a structure as Slicer stores it with a segment.

    :param name: a model's name for it; case, spaces, underscores and hyphens do not matter.
    :return: text such as `vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry` reads; "Tissue" for unknown names: a
        wrong code in a patient's archive is worse than none.
    """
    content = _content()
    category, kind, modifier = _entries().get(_plain(name)) or (*_unknown(), None)
    return "~".join([content["context"], *map(_code, (category, kind, modifier)), NO_REGION])


def isKnown(name):
    """Whether `entryOf` knows what this structure is."""
    return _plain(name) in _entries()


def setTerminology(segment, name):
    """Tell a vtkSegment what it is, for DICOM.

    :param name: the structure's name.
    """
    segment.SetTag(segment.GetTerminologyEntryTagName(), entryOf(name))


@functools.lru_cache(maxsize=1)
def _content():
    return json.loads(FILE.read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=1)
def _entries():
    """{plain name: (category, type, modifier or None)}, each {"meaning", "code"}."""
    content, found = _content(), {}
    for category in content["categories"]:
        for kind in category["types"]:
            for name in kind["names"]:
                found[_plain(name)] = (category, kind, None)
                if kind["paired"]:
                    found.update(_ofSides(name, category, kind, content["laterality"]))
    return found


def _ofSides(name, category, kind, sides):
    found = {}
    for meaning, side in sides.items():
        modifier = {"meaning": meaning, "code": side["code"]}
        for word in side["words"]:
            for text in (f"{word} {name}", f"{name} {word}"):
                found[_plain(text)] = (category, kind, modifier)
    return found


def _unknown():
    unknown = _content()["unknown"]
    return unknown["category"], unknown["type"]


def _code(item):
    return f"{SCHEME}^{item['code']}^{item['meaning']}" if item else "^^"


def _plain(name):
    return re.sub(r"[\s_\-]+", "", str(name).casefold())
