"""The calibration record: stored safely, checked in full, and used only for the members it was made with."""

import copy
import hashlib
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

import CalibUncertaintyLib.model.record as record_module
from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.model.record import CalibrationEntry, CalibrationRecord, find_calibration
from CalibUncertaintyLib.model.record_check import problem_in

SCHEMA = json.loads((Path(record_module.__file__).parent / "calibration-record.schema.json").read_text(encoding="utf-8"))
CHECKPOINT = "checkpoint_final.pth"


def checkpoints(*folds, checkpoint: str = CHECKPOINT) -> list[dict]:
    return [{"fold": fold, "checkpoint": checkpoint, "sha256": hashlib.sha256(str(fold).encode()).hexdigest()} for fold in folds]


def fingerprint_of(*folds) -> dict:
    return {
        "name": "Dataset501_HeadNeck", "configuration": "3d_fullres", "trainer": "nnUNetTrainer",
        "labels": {1: "Brainstem", 2: "Mandible"}, "plans_sha256": "a" * 64, "dataset_sha256": "b" * 64,
        "checkpoints": checkpoints(*folds),
    }


def entry_for(*folds, **changes) -> CalibrationEntry:
    members = {"folds": list(folds), "checkpoint": CHECKPOINT, "checkpoints": checkpoints(*folds), "mirroring": True}
    values = {
        "members": members, "mode": "pool_logit", "temperature": 2.03, "temperature_interval": (1.9, 2.2),
        "member_temperature": 1.8, "roi": {"distance_mm": 15.0, "reference": "union"}, "cases": ["P01", "P02"],
        "figures": {"before": {"nll": 0.24}, "after": {"nll": 0.16}},
        "thresholds": {"entropy": {"value": 0.4, "unit": "nats", "mean_error_dice": 0.43}},
    }
    return CalibrationEntry(**(values | changes))


@pytest.fixture
def record():
    made = CalibrationRecord.for_model(fingerprint_of(0, 1, 2, 3, 4), versions={"numpy": np.__version__})
    made.put(entry_for(0, 1, 2, 3, 4))
    return made


@pytest.fixture
def document(record):
    return record.to_json()


def reason_for(record, fingerprint, mode="pool_logit", mirroring=True) -> str:
    entry, reason = record.find(fingerprint, mode, mirroring)
    assert entry is None
    assert reason
    assert "\n" not in reason
    return reason


# --- finding ---------------------------------------------------------------------------------------------------------

def test_the_entry_of_the_same_members_is_found(record):
    entry, reason = record.find(fingerprint_of(0, 1, 2, 3, 4), "pool_logit", True)
    assert entry is record.entries[0]
    assert "2 cases" in reason
    assert "2.03" in reason


def test_the_order_of_folds_and_the_type_of_label_numbers_do_not_matter(record):
    fingerprint = fingerprint_of(3, 1, 0, 2, 4)
    fingerprint["labels"] = {"2": "Mandible", "1": "Brainstem"}
    assert record.find(fingerprint, "pool_logit", True)[0] is record.entries[0]


def test_other_weights_are_named_by_fold_and_file(record):
    fingerprint = fingerprint_of(0, 1, 2, 3, 4)
    fingerprint["checkpoints"][3]["sha256"] = "f" * 64
    assert reason_for(record, fingerprint) == (
        "fold 3's weights (fold_3/checkpoint_final.pth) are not the ones this record was made with"
    )


def test_other_folds_are_named(record):
    assert reason_for(record, fingerprint_of(0)) == (
        "the model was calibrated for folds 0, 1, 2, 3 and 4 together, not for fold 0 alone"
    )


def test_another_checkpoint_is_named(record):
    fingerprint = fingerprint_of() | {"checkpoints": checkpoints(0, 1, 2, 3, 4, checkpoint="checkpoint_best.pth")}
    assert "checkpoint_final.pth, not with its checkpoint_best.pth" in reason_for(record, fingerprint)


@pytest.mark.parametrize(("change", "named"), [
    ({"labels": {1: "Brainstem", 2: "Spleen"}}, "(Dataset501_HeadNeck): it has Mandible"),
    ({"labels": {1: "Brainstem", 2: "Mandible", 3: "Spleen"}}, "it does not have Spleen"),
    ({"labels": {2: "Brainstem", 1: "Mandible"}}, "other numbers"),
    ({"configuration": "2d"}, "configuration 3d_fullres of Dataset501_HeadNeck, not for 2d"),
    ({"plans_sha256": "c" * 64}, "plans.json"),
])
def test_a_record_of_another_model_is_refused_by_what_differs(record, change, named):
    assert named in reason_for(record, fingerprint_of(0, 1, 2, 3, 4) | change)


def test_other_mirroring_and_another_mode_are_named(record):
    fingerprint = fingerprint_of(0, 1, 2, 3, 4)
    assert reason_for(record, fingerprint, mirroring=False) == (
        "the record was made with mirroring, and this run is without it"
    )
    assert "pool_logit, not as pool_prob" in reason_for(record, fingerprint, mode="pool_prob")


def test_the_reason_is_that_of_the_entry_that_comes_closest(record):
    unmirrored = entry_for(0, 1, 2, 3, 4)
    unmirrored.members["mirroring"] = False
    for entries in ([*record.entries, unmirrored], [unmirrored, *record.entries]):
        record.entries = entries
        assert "pool_prob" in reason_for(record, fingerprint_of(0, 1, 2, 3, 4), mode="pool_prob", mirroring=True)


def test_an_empty_record_finds_nothing():
    record = CalibrationRecord.for_model(fingerprint_of(0))
    assert "empty" in reason_for(record, fingerprint_of(0))


def test_fold_all_has_its_own_entry(record):
    record.put(entry_for("all", temperature=1.4))
    assert record.find(fingerprint_of("all"), "pool_logit", True)[0].temperature == 1.4


def test_a_missing_or_damaged_file_is_a_reason_and_no_exception(tmp_path, record):
    path = tmp_path / "calibration.json"
    assert "no calibration record" in find_calibration(path, fingerprint_of(0), "pool_logit", True)[1]
    path.write_text("{", encoding="utf-8")
    entry, reason = find_calibration(path, fingerprint_of(0), "pool_logit", True)
    assert entry is None
    assert "damaged" in reason
    record.write(path)
    entry, _ = find_calibration(path, fingerprint_of(0, 1, 2, 3, 4), "pool_logit", True)
    assert entry.to_json() == record.entries[0].to_json()


# --- storing ---------------------------------------------------------------------------------------------------------

def test_a_record_survives_the_file(tmp_path, record):
    record.put(entry_for(0, temperature_interval=None, member_temperature=None))
    path = tmp_path / "calibration.json"
    record.write(path)
    read = CalibrationRecord.read(path)
    assert read.to_json() == record.to_json()
    assert [entry.temperature for entry in read.entries] == [2.03, 2.03]
    assert list(tmp_path.iterdir()) == [path]


def test_put_replaces_the_entry_of_the_same_members_and_keeps_the_others(record):
    record.put(entry_for(0, 1, 2, 3, 4, mode="pool_prob", temperature=1.77))
    record.put(entry_for(0, temperature=2.04))
    record.put(entry_for(4, 3, 2, 1, 0, temperature=9.0))
    assert [(len(entry.members["folds"]), entry.mode, entry.temperature) for entry in record.entries] == [
        (5, "pool_prob", 1.77), (1, "pool_logit", 2.04), (5, "pool_logit", 9.0),
    ]


def test_fields_of_a_later_version_are_kept(tmp_path, record, document):
    document["note"] = "kept"
    document["entries"][0]["per_class"] = {"1": 1.5}
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    read = CalibrationRecord.read(path)
    read.put(entry_for(0))
    read.write(path)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["note"] == "kept"
    assert written["entries"][0]["per_class"] == {"1": 1.5}


def test_numpy_numbers_and_nan_figures_are_stored_as_plain_json(tmp_path, record):
    record.put(entry_for(
        0, temperature=np.float64(1.5), temperature_interval=(math.nan, math.nan),
        figures={"before": {"nll": np.float32(0.5), "ece_toplabel": math.nan}, "after": {}},
    ))
    path = tmp_path / "calibration.json"
    record.write(path)
    entry = CalibrationRecord.read(path).entries[1]
    assert entry.temperature_interval is None
    assert entry.figures["before"] == {"nll": 0.5, "ece_toplabel": None}


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, 1e-300, 0.049, 20.1])
def test_a_temperature_that_is_none_is_not_written(tmp_path, record, temperature):
    path = tmp_path / "calibration.json"
    record.put(entry_for(0, temperature=temperature))
    with pytest.raises(CalibUncertaintyError, match=r"entries\[1\]\.temperature must be a number from 0\.05 to 20"):
        record.write(path)
    assert not path.exists()


@pytest.mark.parametrize(("name", "error"), [
    ("replace", PermissionError(13, "Permission denied")), ("fsync", OSError(28, "No space left on device")),
])
def test_a_failed_write_leaves_the_old_record_and_no_scrap(tmp_path, record, monkeypatch, name, error):
    path = tmp_path / "calibration.json"
    record.write(path)
    before = path.read_bytes()
    record.put(entry_for(0))

    def fail(*_):
        raise error

    monkeypatch.setattr(record_module.os, name, fail)
    with pytest.raises(CalibUncertaintyError, match=f"{re.escape(str(path))} cannot be written: {error.strerror}.*--out"):
        record.write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_is_not_there_is_named(tmp_path, record):
    with pytest.raises(CalibUncertaintyError, match="nowhere"):
        record.write(tmp_path / "nowhere" / "calibration.json")


@pytest.mark.parametrize(("content", "named"), [
    (b"", "damaged"), (b"{\"schema\": ", "damaged"), (b"\xff\xfe\x00", "damaged"), (b"[]", "not a calibration record"),
    (b"{\"schema\": \"something else\"}", "not a calibration record"),
])
def test_a_file_that_is_no_record_is_refused_in_one_line(tmp_path, content, named):
    path = tmp_path / "calibration.json"
    path.write_bytes(content)
    with pytest.raises(CalibUncertaintyError, match=named) as caught:
        CalibrationRecord.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused_in_one_line(tmp_path):
    with pytest.raises(CalibUncertaintyError, match="calibrate the model first"):
        CalibrationRecord.read(tmp_path / "calibration.json")
    with pytest.raises(CalibUncertaintyError, match="cannot be read"):
        CalibrationRecord.read(tmp_path)


@pytest.mark.parametrize(("version", "named"), [(4, "newer version"), (0, "older version"), ("1", "whole number")])
def test_a_record_of_another_schema_version_says_so(tmp_path, document, version, named):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(document | {"schema_version": version}), encoding="utf-8")
    with pytest.raises(CalibUncertaintyError, match=named):
        CalibrationRecord.read(path)


# --- checking: the hand-written check and the schema file say the same -----------------------------------------------

BETWEEN_VALUES = re.compile(
    r"name each of the folds and no other|lower end first|no checkpoint twice|models that are listed|"
    r"labels \(\d+\)|where it is a list|for the method|for the mode|for each of the checkpoints|an object of the method"
)


def extended_document() -> dict:
    """A record that uses every field: regions, two models, two checkpoints a fold, flips as members and inserted dropout."""
    made = CalibrationRecord.for_model(fingerprint_of(0))
    files = [
        {"model": model, **item} for model in (0, 1) for name in (CHECKPOINT, "checkpoint_cycle_1.pth")
        for item in checkpoints(0, checkpoint=name)
    ]
    members = {
        "folds": [0], "checkpoint": "both", "checkpoints": files, "mirroring": True, "flips": "members", "dropout": 5, "seed": 3,
        "insert_dropout": 0.25,
        "models": [{"name": name, "configuration": "c", "trainer": "t", "plans_sha256": "a" * 64} for name in "AB"],
        "duplicates": checkpoints(0, checkpoint="checkpoint_cycle_2.pth"),
        "previous": {"plans_sha256": "c" * 64, "checkpoints": checkpoints(0)}, "step_size": 0.25, "precision": "bf16",
    }
    made.put(entry_for(0, members=members, temperature=[1.5, 2.0], temperature_interval=[[1.0, 2.0], None],
                       member_temperature=[1.5, 2.5]))
    return made.to_json()


def schema_accepts(value, schema) -> bool:
    """A small JSON Schema validator: the keywords that the schema file uses, and no other."""
    if "$ref" in schema:
        return schema_accepts(value, SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]])
    number = isinstance(value, int | float) and not isinstance(value, bool)
    types = {"object": isinstance(value, dict), "array": isinstance(value, list), "string": isinstance(value, str),
             "number": number, "integer": number and float(value).is_integer(), "boolean": isinstance(value, bool),
             "null": value is None}
    rules = {
        "type": lambda rule: types[rule],
        "const": lambda rule: value == rule and isinstance(value, bool) == isinstance(rule, bool),
        "enum": lambda rule: value in rule,
        "oneOf": lambda rule: sum(schema_accepts(value, choice) for choice in rule) == 1,
        "pattern": lambda rule: not types["string"] or re.search(rule, value) is not None,
        "minimum": lambda rule: not number or value >= rule,
        "maximum": lambda rule: not number or value <= rule,
        "exclusiveMinimum": lambda rule: not number or value > rule,
        "exclusiveMaximum": lambda rule: not number or value < rule,
        "minItems": lambda rule: not types["array"] or len(value) >= rule,
        "maxItems": lambda rule: not types["array"] or len(value) <= rule,
        "uniqueItems": lambda rule: not types["array"] or len({json.dumps(item) for item in value}) == len(value),
        "minProperties": lambda rule: not types["object"] or len(value) >= rule,
        "required": lambda rule: not types["object"] or all(key in value for key in rule),
        "items": lambda rule: not types["array"] or all(schema_accepts(item, rule) for item in value),
        "properties": lambda rule: not types["object"] or all(
            schema_accepts(value[key], sub) for key, sub in rule.items() if key in value),
        "additionalProperties": lambda rule: not types["object"] or all(
            schema_accepts(item, rule) for key, item in value.items() if key not in schema.get("properties", {})),
        "propertyNames": lambda rule: not types["object"] or all(schema_accepts(key, rule) for key in value),
    }
    ignored = {"$schema", "$id", "$defs", "title", "description"}
    return all(rules[key](rule) for key, rule in schema.items() if key not in ignored)


def places_in(value, place=()):
    """Every place in a document, as a tuple of keys."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*place, key)
        if isinstance(item, dict | list):
            yield from places_in(item, (*place, key))


def changed(document: dict, place: tuple, value) -> dict:
    result = copy.deepcopy(document)
    target = result
    for key in place[:-1]:
        target = target[key]
    if value is KeyError:
        del target[place[-1]]
    else:
        target[place[-1]] = value
    return result


def test_a_right_record_passes_both_checks(document):
    assert problem_in(document) == ""
    assert schema_accepts(document, SCHEMA)


@pytest.mark.parametrize(
    "temperature", [0.05 - 5e-10, 0.05, math.exp(math.log(0.05)), 1.0, 20.0, math.exp(math.log(20)), 20 + 5e-10]
)
def test_every_temperature_that_a_fit_can_find_passes_both_checks(document, temperature):
    document["entries"][0] |= {
        "temperature": temperature, "member_temperature": temperature, "temperature_interval": [temperature, temperature],
    }
    assert problem_in(document) == ""
    assert schema_accepts(document, SCHEMA)


@pytest.mark.parametrize("extended", [False, True])
def test_the_check_and_the_schema_file_agree_on_every_wrong_field(document, extended):
    if extended:
        document = extended_document()
        assert problem_in(document) == ""

    values = [KeyError, None, True, -1, 0, 1, 1.5, "", "text", "all", "f" * 64, "f" * 65, [], [1], [1, 1], [1, 2], ["a"], {},
              {"1": "a"}, {"0": "a"}, {"1": 2}, {"²": "a"}, {"٣": "a"}, 1e-300, 0.04, 20.1, [1e-300, 1], [1, 21], "members",
              [[1, 2], None], [[1, 2], [2]], [1, [1]], 2]
    compared = refused = 0
    for place in places_in(document):
        for value in values:
            wrong = changed(document, place, value)
            # Rules between values, which a schema cannot state.
            if BETWEEN_VALUES.search(problem_in(wrong)):
                continue
            assert (problem_in(wrong) == "") == schema_accepts(wrong, SCHEMA), (place, value, problem_in(wrong))
            compared += 1
            refused += problem_in(wrong) != ""
    assert compared > 500
    assert 0.5 < refused / compared < 1


@pytest.mark.parametrize(("place", "value", "named"), [
    (("entries", 0, "temperature"), -1, "entries[0].temperature must be a number from 0.05 to 20"),
    (("entries", 0, "temperature"), 10**400, "entries[0].temperature must be a number from 0.05 to 20"),
    (("entries", 0, "temperature"), 1e-300, "entries[0].temperature must be a number from 0.05 to 20"),
    (("entries", 0, "member_temperature"), 1e300, "entries[0].member_temperature must be null or a number from 0.05 to 20"),
    (("entries", 0, "temperature_interval"), [1e-9, 2.2], "entries[0].temperature_interval must be null or two numbers from"),
    (("model", "labels"), {"²": "Mandible"}, "model.labels must be"),
    (("entries", 0, "temperature"), KeyError, "entries[0].temperature is missing"),
    (("entries", 0, "temperature_interval"), [2.2, 1.9], "entries[0].temperature_interval must be two numbers, lower end"),
    (("entries", 0, "members", "folds"), [0, 1], "entries[0].members.checkpoints must name each of the folds and no other"),
    (("entries", 0, "members", "checkpoints", 2, "sha256"), "abc", "entries[0].members.checkpoints[2].sha256 must be a SHA"),
    (("entries", 0, "thresholds", "entropy", "value"), 10**400, "entries[0].thresholds.entropy.value must be a number"),
    (("entries", 0, "members", "folds"), [0, 1, 2, 3, 4, 4], "entries[0].members.folds must be a list of different folds"),
    (("entries", 0, "thresholds", "entropy", "value"), "high", "entries[0].thresholds.entropy.value must be a number"),
    (("entries", 0), 3, "entries[0] must be an object"),
    (("model", "labels"), {}, "model.labels must be"),
])
def test_a_wrong_field_is_named_in_one_line(document, place, value, named):
    problem = problem_in(changed(document, place, value))
    assert problem.startswith(named)
    assert "\n" not in problem
