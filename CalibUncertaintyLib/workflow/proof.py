"""The proof of a calibration: what a physicist shows to a clinic. Tables, pictures and one page, of a record's figures."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..calibration.methods import METHODS
from ..errors import CalibUncertaintyError
from ..model.member_set import MemberSet
from ..model.record import CalibrationEntry, CalibrationRecord
from ..model.record_match import PRECISION, STEP_SIZE, computing
from ..plain_json import parsed, plain
from ..volume import refuse_unusable_name
from .info import temperature_in_words
from .proof_numbers import (
    case_ids,
    check_proof,
    dice_names,
    dice_of,
    metrics_in,
    of_case,
    statistics_of,
    voxels_of,
)
from .proof_page import page
from .proof_pictures import draw

SCHEMA, SCHEMA_VERSION = "calib-uncertainty/proof", 1
REPORT = "report.html"
FILES = ("proof.json", "cases.csv", "reliability.png", "subjects.png", "classes.png", REPORT)
_PICTURE = re.compile(r"(reliability|subjects|classes(_\d+)?)\.png")
# What an entry may know of its figures' cases: fitted on them, each predicted by a fit without it, or kept out of it all
EVALUATED_ON = ("fit", "cross_validation", "held_out")
_OF_TEMPERATURE = {"temperature": "temperature", "interval": "temperature_interval", "status": "temperature_status"}


def proof_of(
    entry: CalibrationEntry, record: CalibrationRecord, classes: Sequence[str], described: str, compared: Sequence[Mapping] = ()
) -> dict:  # fmt: skip
    """What `write_proof` writes down, of one entry of a record alone: nothing is computed anew.

    :param classes: names of the network's channels, for softmax with the background first.
    :param described: the members in words.
    :param compared: the alternatives that were tried, each {"mode", "method", "nll_cv", "ece_cv", "changed_labels", "chosen"}.
    :returns: plain values: title, model, members, described, mode, method, parameters, in_words, roi, cases (that were fitted
        on), evaluated_on (one of `EVALUATED_ON`), created, versions, classes, figures, compared.
    """
    stored = entry.to_json()
    parameters = stored.get("parameters")
    if not parameters:
        parameters = {name: stored[key] for name, key in _OF_TEMPERATURE.items() if stored.get(key) is not None}
        if entry.member_temperature is not None:
            parameters["member_temperature"] = stored["member_temperature"]
    figures = {when: dict(stored["figures"].get(when) or {}) for when in ("before", "after")}
    return plain(
        {
            "title": f"Calibration of {record.model['name']}",
            "model": record.model,
            "members": stored["members"],
            "described": described,
            "mode": entry.mode,
            "method": entry.method,
            "preserves": _preserves(entry, figures),
            "parameters": parameters,
            "in_words": _in_words(entry, stored),
            "roi": stored["roi"],
            "cases": stored["cases"],
            "evaluated_on": stored["figures"].get("evaluated_on", "fit"),
            "created": entry.created,
            "versions": record.versions,
            "classes": list(classes),
            "figures": figures,
            "compared": list(compared),
        }
    )


def write_proof(folder: str | Path, proof: Mapping) -> dict[str, Path]:
    """Write a proof: proof.json, cases.csv, reliability.png, subjects.png, classes.png (classes_2.png, ...) and report.html.

    Each file is written aside and renamed into place; those of an earlier proof are replaced, other files in the folder stay.
    Pictures are left out where there is nothing to draw or no matplotlib, and the page says so. The page needs no other file and
    nothing from the net.

    :param proof: as `proof_of` gives it. Figures may also hold, for each case and pooled, any of `proof_numbers.METRICS` and
        "dice_per_class", and "classes": {name: {"bins", "ece"}}. What is missing is left out.
    :returns: the path of each file that was written, by its name.
    :raises CalibUncertaintyError: no figures before and after, or the folder cannot be written to or has files of these names
        that are of no proof; one line.
    """
    check_proof(proof)
    folder, statistics = Path(os.path.abspath(folder)), statistics_of(proof)
    _refuse_foreign(folder)
    pictures = draw(proof, statistics)
    document = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **proof, "statistics": statistics}
    contents = {
        "proof.json": (json.dumps(plain(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(),
        "cases.csv": case_table(proof).encode(),
        **pictures,
        REPORT: page(proof, statistics, pictures).encode(),
    }
    return _put(folder, contents)


def check_proof_folder(folder: str | Path) -> None:
    """Refuse, before the computing, a folder that a proof could not be written into after it; nothing is made.

    Raises CalibUncertaintyError in one line.
    """
    folder = Path(os.path.abspath(folder))
    refuse_unusable_name(folder)
    _refuse_foreign(folder)
    there = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise CalibUncertaintyError(
            f"the proof cannot be written to {folder} ({error.strerror}); choose another folder"
        ) from error


def _refuse_foreign(folder: Path) -> None:
    """A file that a proof would replace, in a folder without a proof, is somebody's own: a list of cases is often cases.csv."""
    try:
        earlier = parsed((folder / "proof.json").read_bytes())
    except (OSError, ValueError):
        earlier = None
    if isinstance(earlier, Mapping) and earlier.get("schema") == SCHEMA:
        return
    own = [name for name in FILES if (folder / name).exists()]
    if own:
        raise CalibUncertaintyError(
            f"{folder / own[0]} is there already and of no proof, which would replace it; choose another folder"
        )


def write_stored_proof(
    members: MemberSet, mode: str, calibration: str | Path, folder: Path, step_size: float = STEP_SIZE, precision: str = PRECISION,
) -> dict[str, Path]:  # fmt: skip
    """`write_proof` of the entry that holds for these members. calibration: auto, or a record file.

    Raises CalibUncertaintyError where no record is there, or none of its entries holds for them.
    """
    check_proof_folder(folder)
    path = members.models[0].record_path if str(calibration) == "auto" else Path(calibration)
    record = CalibrationRecord.read(path)
    entry, reason = record.find(members.fingerprint() | computing(step_size, precision), mode, members.mirroring)
    if entry is None:
        raise CalibUncertaintyError(f"{path} does not hold for these members: {reason}; calibrate them first")
    heads = members.models[0].heads
    classes = heads.names if heads.sigmoid else ("background", *heads.names)
    return write_proof(folder, proof_of(entry, record, classes, members.describe(), entry.compared))


def case_table(proof: Mapping) -> str:
    """The figures of each case as CSV: case, voxels, every figure before and after, Dice by structure. Fractions, not percent."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    metrics, names, both = metrics_in(proof), dice_names(proof), ("before", "after")
    heads = [f"{metric.key}_{when}" for metric in metrics for when in both]
    writer.writerow(["case", "voxels", *heads, *(f"dice_{name}_{when}" for name in names for when in both)])
    for case in case_ids(proof):
        overlaps = {when: dice_of(proof, when, case) for when in both}
        values = [voxels_of(proof, case)]
        values += [of_case(proof, when, case, metric.key) for metric in metrics for when in both]
        values += [overlaps[when].get(name, math.nan) for name in names for when in both]
        writer.writerow([case, *("" if math.isnan(value) else f"{value:.10g}" for value in values)])
    return stream.getvalue()


def _preserves(entry: CalibrationEntry, figures: Mapping) -> str | None:
    """What the method keeps of the decisions of such heads; None of a method that is not known here."""
    if entry.method not in METHODS:
        return None
    method, pooled = METHODS[entry.method], figures["after"].get("pooled")
    of_regions = isinstance(pooled, Mapping) and "regions" in pooled
    return method.preserves_regions if of_regions else method.preserves


def _in_words(entry: CalibrationEntry, stored: Mapping) -> str:
    if stored.get("in_words"):
        return str(stored["in_words"])
    return temperature_in_words(entry)


def _put(folder: Path, contents: Mapping[str, bytes]) -> dict[str, Path]:
    """Write all files aside, then rename each into place; pictures of an earlier proof that this one has not are removed."""
    aside = folder / f".proof.{os.getpid()}-{secrets.token_hex(4)}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
        for name, content in contents.items():
            (aside / name).write_bytes(content)
        for name in contents:
            os.replace(aside / name, folder / name)
        for earlier in folder.iterdir():
            if _PICTURE.fullmatch(earlier.name) and earlier.name not in contents:
                earlier.unlink()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CalibUncertaintyError(
            f"the proof cannot be written to {folder} ({reason}); choose another folder"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return {name: folder / name for name in contents}
