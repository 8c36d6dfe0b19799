"""The hash of a record's content: any other value is noticed, any other way of writing the same is not."""

import copy
import json

import pytest

from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.model.record import CalibrationEntry, CalibrationRecord
from CalibUncertaintyLib.model.record_hash import HASH_KEY, content_hash, is_as_written, with_content_hash

FINGERPRINT = {
    "name": "Dataset1_X", "configuration": "3d_fullres", "trainer": "nnUNetTrainer", "labels": {1: "Großhirn", 2: "Node"},
    "plans_sha256": "a" * 64,
}  # fmt: skip


@pytest.fixture
def document():
    record = CalibrationRecord.for_model(FINGERPRINT, versions={"numpy": "2.0"})
    checkpoints = [{"fold": fold, "checkpoint": "checkpoint_final.pth", "sha256": f"{fold}" * 64} for fold in (0, 1)]
    members = {"folds": [0, 1], "checkpoint": "checkpoint_final.pth", "checkpoints": checkpoints, "mirroring": True}
    entry = CalibrationEntry(
        members, "pool_logit", 2.0, {"distance_mm": 15.0, "reference": "union"}, ["P1", "P2"], temperature_interval=(1.9, 2.2),
        figures={"before": {"nll": 0.24}, "after": {"nll": 0.16, "ece": None}},
        thresholds={"entropy": {"value": 0.4, "unit": "nats"}},
    )  # fmt: skip
    record.put(entry)
    return record.to_json()


def leaves(value, path=()):
    """Every place of a value that is no object and no list, and every empty one."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    items = list(items)
    if not items:
        yield path
    for key, item in items:
        yield from leaves(item, (*path, key))


def test_every_single_value_that_is_changed_is_noticed(document):
    stored = with_content_hash(document)
    paths = list(leaves(document))
    assert len(paths) > 25
    for path in paths:
        changed = copy.deepcopy(stored)
        *way, last = path
        place = changed
        for key in way:
            place = place[key]
        value = place[last]
        place[last] = value + 0.001 if isinstance(value, float) else not value if isinstance(value, bool) else [value]
        assert is_as_written(changed) is False, path


@pytest.mark.parametrize("change", [
    lambda d: d["entries"].append(copy.deepcopy(d["entries"][0])),
    lambda d: d["entries"].clear(),
    lambda d: d["entries"][0]["cases"].reverse(),
    lambda d: d["entries"][0].pop("figures"),
    lambda d: d.update(note="looked at by hand"),
    lambda d: d["entries"][0]["figures"]["after"].update(nll=float("nan")),
])  # fmt: skip
def test_what_is_added_taken_away_or_turned_round_is_noticed(document, change):
    stored = with_content_hash(document)
    change(stored)
    assert is_as_written(stored) is False


def test_the_same_values_written_another_way_have_the_same_hash(document):
    stored = with_content_hash(document)
    for text in (
        json.dumps(stored, indent=4, sort_keys=True),
        json.dumps(stored, ensure_ascii=False, separators=(",", ":")),
        json.dumps(stored).replace("2.0,", "2,").replace("15.0,", "15,"),  # as JavaScript writes whole numbers
        json.dumps(dict(reversed(stored.items()))),
    ):
        assert is_as_written(json.loads(text)) is True


def test_the_hash_survives_the_record_file(document, tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(with_content_hash(document)), encoding="utf-8")
    record = CalibrationRecord.read(path)
    record.write(path)  # this version keeps what it does not know, so an unchanged record stays whole
    assert is_as_written(json.loads(path.read_text(encoding="utf-8"))) is True


def test_a_record_without_a_hash_is_neither_whole_nor_changed(document):
    assert is_as_written(document) is None


def test_a_hash_that_is_none_is_no_match_and_a_new_one_replaces_the_old(document):
    assert is_as_written({**document, HASH_KEY: "tampered"}) is False
    assert is_as_written({**document, HASH_KEY: 7}) is False
    again = with_content_hash(with_content_hash(document))
    assert again[HASH_KEY] == content_hash(document)
    assert len(again[HASH_KEY]) == 64


def test_numbers_are_told_from_texts_and_truths(document):
    hashes = {content_hash({**document, "note": value}) for value in (1, "1", True, None, [1], 1.5)}
    assert len(hashes) == 6


def test_a_record_that_was_changed_is_refused_unless_asked_for_as_it_is(document, tmp_path):
    path = tmp_path / "calibration.json"
    changed = with_content_hash(document)
    changed["entries"][0]["temperature"] += 0.25
    path.write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(CalibUncertaintyError, match=r"calibration\.json was changed after it was written"):
        CalibrationRecord.read(path)
    assert CalibrationRecord.read(path, as_written=False).entries[0].temperature == changed["entries"][0]["temperature"]
