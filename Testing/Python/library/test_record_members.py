"""The calibration record and members beyond folds of one model: found for exactly these, and every difference named."""

import hashlib

import pytest

from CalibUncertaintyLib.model.record import CalibrationEntry, CalibrationRecord
from CalibUncertaintyLib.model.record_check import problem_in
from CalibUncertaintyLib.model.record_match import computing

FINAL = "checkpoint_final.pth"
CYCLES = tuple(f"checkpoint_cycle_{number}.pth" for number in (1, 2, 3))
TWO_MODELS = [
    {"name": f"Dataset1_{letter.upper()}", "configuration": "3d_fullres", "plans_sha256": letter * 64} for letter in "ab"
]


def file_of(fold, name, text=None, model=None) -> dict:
    found = {"fold": fold, "checkpoint": name, "sha256": hashlib.sha256((text or f"{model}{fold}{name}").encode()).hexdigest()}
    return found if model is None else {"model": model, **found}


def fingerprint(files, **beyond) -> dict:
    return {
        "name": "Dataset1_A", "configuration": "3d_fullres", "trainer": "T", "labels": {"1": "Liver"}, "plans_sha256": "a" * 64,
        "checkpoints": files, **beyond,
    }


def entry(files, mode="pool_logit", mirroring=True, temperature=1.5, **beyond) -> CalibrationEntry:
    folds = list(dict.fromkeys(item["fold"] for item in files))
    members = {"folds": folds, "checkpoint": "named", "checkpoints": files, "mirroring": mirroring, **beyond}
    return CalibrationEntry(
        members=members, mode=mode, temperature=temperature, roi={"distance_mm": 15.0, "reference": "union"}, cases=["a"]
    )


def record_of(*entries) -> CalibrationRecord:
    record = CalibrationRecord.for_model(fingerprint([]))
    for item in entries:
        record.put(item)
    assert problem_in(record.to_json()) == ""
    return record


FINALS = [file_of(fold, FINAL) for fold in (0, 1)]
ALL_CYCLES = [file_of(fold, name) for fold in (0, 1) for name in CYCLES]
OF_TWO = [file_of(0, FINAL, model=model) for model in (0, 1)]
KINDS = {
    "plain": (FINALS, True, {}),
    "no flips": (FINALS, False, {}),
    "flips": (FINALS, True, {"flips": "members"}),
    "cycles": (ALL_CYCLES, True, {}),
    "dropout": (FINALS, True, {"dropout": 20, "seed": 0}),
    "another seed": (FINALS, True, {"dropout": 20, "seed": 1}),
    "more samples": (FINALS, True, {"dropout": 30, "seed": 0}),
    "inserted": (FINALS, True, {"dropout": 20, "seed": 0, "insert_dropout": 0.2}),
    "two models": (OF_TWO, True, {"models": TWO_MODELS}),
    "bf16": (FINALS, True, {"precision": "bf16"}),
    "larger steps": (FINALS, True, {"step_size": 1.0}),
}


def test_every_kind_of_members_has_its_own_entry_and_finds_no_other():
    record = record_of(
        *(entry(files, mirroring=mirroring, temperature=1 + index / 10, **beyond)
          for index, (files, mirroring, beyond) in enumerate(KINDS.values()))
    )  # fmt: skip
    assert len(record.entries) == len(KINDS)
    for index, (files, mirroring, beyond) in enumerate(KINDS.values()):
        found, reason = record.find(fingerprint(files, **beyond), "pool_logit", mirroring)
        assert found is record.entries[index], reason
        alone = CalibrationRecord(record.model, [e for e in record.entries if e is not found])
        nothing, reason = alone.find(fingerprint(files, **beyond), "pool_logit", mirroring)
        assert nothing is None
        assert reason
        assert "\n" not in reason


@pytest.mark.parametrize(
    ("made", "asked", "said"),
    [
        ("plain", "flips", "the record was made with mirroring, and this run is with each flip as a member"),
        ("flips", "no flips", "the record was made with each flip as a member, and this run is without it"),
        ("plain", "cycles", "the record was made without fold 0's checkpoint_cycle_1.pth, which this run uses"),
        ("cycles", "plain", "the record was made without fold 0's checkpoint_final.pth, which this run uses"),
        ("plain", "dropout", "the record was made without dropout, and this run is with 20 dropout samples (seed 0)"),
        ("dropout", "another seed",
         "the record was made with 20 dropout samples (seed 0), and this run is with 20 dropout samples (seed 1)"),
        ("dropout", "inserted",
         "the record was made with 20 dropout samples (seed 0), and this run is with 20 dropout samples (seed 0, inserted with"
         " rate 0.2)"),
        ("bf16", "plain", "the record was made with --precision bf16, and this run is without it"),
        ("plain", "bf16", "the record was made without --precision bf16, and this run is with it"),
        ("larger steps", "plain", "the record was made with --step-size 1, and this run is with --step-size 0.5"),
        ("plain", "larger steps", "the record was made with --step-size 0.5, and this run is with --step-size 1"),
    ],
)  # fmt: skip
def test_what_differs_is_named(made, asked, said):
    files, mirroring, beyond = KINDS[made]
    record = record_of(entry(files, mirroring=mirroring, **beyond))
    files, mirroring, beyond = KINDS[asked]
    assert record.find(fingerprint(files, **beyond), "pool_logit", mirroring) == (None, said)


def test_another_number_of_models_is_named():
    one_fold = [file_of(0, FINAL)]
    asked = fingerprint(OF_TWO, models=TWO_MODELS)
    assert record_of(entry(one_fold)).find(asked, "pool_logit", True)[1] == (
        "the record was made for one model folder, and this run asks 2 model folders together (Dataset1_A, Dataset1_B)"
    )


MODEL = {"name": "Dataset1_B", "configuration": "3d_fullres", "trainer": "T", "plans_sha256": "b" * 64}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"plans_sha256": "c" * 64}, "Dataset1_B (T, 3d_fullres) has other plans (plans.json) than when this record was made"),
        ({"configuration": "2d"}, "the record was made with the configuration 3d_fullres of Dataset1_B, and this run asks its 2d"),
        ({"name": "Dataset1_C", "plans_sha256": "c" * 64},
         "the record was made with Dataset1_B, and this run asks Dataset1_C in its place"),
    ],
)  # fmt: skip
def test_another_second_model_is_named_with_what_differs(change, said):
    first = {**MODEL, "name": "Dataset1_A", "plans_sha256": "a" * 64}
    record = record_of(entry(OF_TWO, models=[first, MODEL]))
    assert record.find(fingerprint(OF_TWO, models=[first, MODEL]), "pool_logit", True)[0] is not None
    assert record.find(fingerprint(OF_TWO, models=[first, {**MODEL, **change}]), "pool_logit", True) == (None, said)


def test_weights_that_stand_behind_the_other_models_plans_are_other_members():
    record = record_of(entry(OF_TWO, models=TWO_MODELS))
    crossed = [{**OF_TWO[0], "model": 1}, {**OF_TWO[1], "model": 0}]
    found, said = record.find(fingerprint(crossed, models=TWO_MODELS), "pool_logit", True)
    assert found is None
    assert said.startswith("fold 0's weights (fold_0/checkpoint_final.pth) of Dataset1_B (3d_fullres) are not the ones")


def test_equal_bytes_in_two_models_are_two_items():
    """With other plans both are asked; with the same plans one is left out, and the other must not go with it."""
    equal = [{**OF_TWO[0], "model": index} for index in (0, 1)]
    record = record_of(entry(equal, models=TWO_MODELS))
    assert record.find(fingerprint(equal, models=TWO_MODELS), "pool_logit", True)[0] is not None
    assert record.find(fingerprint(equal[:1], models=TWO_MODELS), "pool_logit", True)[0] is None

    same_plans = [{**model, "plans_sha256": "a" * 64} for model in TWO_MODELS]
    other = file_of(1, FINAL, model=1)
    record = record_of(entry([equal[0], other], models=same_plans, duplicates=equal[1:]))
    for files, beyond in (([equal[0], other], {"duplicates": equal[1:]}), ([*equal, other], {})):
        assert record.find(fingerprint(files, models=same_plans, **beyond), "pool_logit", True)[0] is record.entries[0]
    found, said = record.find(fingerprint([other], models=same_plans), "pool_logit", True)
    assert found is None
    assert said == "the model was calibrated for folds 0 and 1 together, not for fold 1 alone"


def test_step_size_and_precision_are_recorded_only_where_they_are_not_nnu_nets_own():
    assert computing() == computing(0.5, "stock") == {}
    assert computing(1, "bf16") == {"step_size": 1.0, "precision": "bf16"}
    _, said = record_of(entry(FINALS, **computing(1, "bf16"))).find(
        fingerprint(FINALS, **computing(1, "bf16")), "pool_logit", True
    )
    assert "for folds 0 and 1 together, step size 1, precision bf16, temperature 1.5" in said


def test_a_checkpoint_that_the_run_does_not_use_is_named():
    record = record_of(entry(ALL_CYCLES))
    fewer = [item for item in ALL_CYCLES if item["checkpoint"] != CYCLES[1]]
    assert record.find(fingerprint(fewer), "pool_logit", True)[1] == (
        "the record was made with fold 0's checkpoint_cycle_2.pth too, which this run does not use"
    )


def test_the_order_of_checkpoints_and_models_does_not_matter():
    record = record_of(entry(ALL_CYCLES), entry(OF_TWO, models=TWO_MODELS))
    assert record.find(fingerprint(ALL_CYCLES[::-1]), "pool_logit", True)[0] is record.entries[0]
    swapped = fingerprint([{**OF_TWO[1], "model": 0}, {**OF_TWO[0], "model": 1}], models=TWO_MODELS[::-1])
    assert record.find(swapped | {"plans_sha256": "b" * 64}, "pool_logit", True)[0] is record.entries[1]
    record.put(entry([{**OF_TWO[1], "model": 0}, {**OF_TWO[0], "model": 1}], models=TWO_MODELS[::-1], temperature=2.5))
    assert [item.temperature for item in record.entries] == [1.5, 2.5]


def test_a_duplicate_found_while_loading_is_no_difference_to_a_run_that_has_not_loaded_yet():
    final, last = file_of(0, FINAL), file_of(0, CYCLES[2])
    others = [file_of(0, name) for name in CYCLES[:2]]
    loaded = entry([final, *others], duplicates=[last])
    for files, beyond in (([final, *others, last], {}), ([final, *others], {"duplicates": [last]}), ([final, *others], {})):
        assert record_of(loaded).find(fingerprint(files, **beyond), "pool_logit", True)[0] is not None
    changed = file_of(0, CYCLES[2], text="trained further")
    assert "checkpoint_cycle_3.pth" in record_of(loaded).find(fingerprint([final, *others, changed]), "pool_logit", True)[1]


def test_the_same_members_again_replace_their_entry_only():
    record = record_of(entry(FINALS), entry(FINALS, flips="members"), entry(FINALS, dropout=20, seed=0), entry(ALL_CYCLES))
    record.put(entry([file_of(fold, FINAL, text="trained again") for fold in (0, 1)], flips="members", temperature=3.0))
    assert [e.temperature for e in record.entries] == [1.5, 1.5, 1.5, 3.0]
    assert record.entries[-1].members["flips"] == "members"


def test_only_a_record_that_older_programs_would_misread_has_the_new_version():
    assert record_of(entry(FINALS)).to_json()["schema_version"] == 1
    for _, (files, mirroring, beyond) in list(KINDS.items())[2:]:
        assert record_of(entry(files, mirroring=mirroring, **beyond)).to_json()["schema_version"] == 2
    assert record_of(entry(FINALS, temperature=[1.5])).to_json()["schema_version"] == 2


def test_temperatures_of_regions_survive_the_file_and_are_shown(tmp_path):
    made = record_of(entry(FINALS, temperature=[1.5]))
    made.write(tmp_path / "r.json")
    found, said = CalibrationRecord.read(tmp_path / "r.json").find(fingerprint(FINALS), "pool_logit", True)
    assert found.temperature == [1.5]
    assert said.endswith("temperatures 1.5")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"temperature": [1.5, 2.0]}, "entries[0].temperature must be one number or as many as the model has labels (1), got 2"),
        ({"temperature": [1.5], "temperature_interval": [1.0, 2.0]}, "entries[0].temperature_interval must be one where"),
        ({"temperature": 1.5, "temperature_interval": [[1.0, 2.0]]}, "entries[0].temperature_interval must be one where"),
        ({"temperature": [1.5], "temperature_interval": [[1.0, 2.0], None]}, "entries[0].temperature_interval must have as many"),
        ({"member_temperature": [1.5, 2.0]}, "entries[0].member_temperature must be one number or as many as the model has"),
        ({"temperature": [0.0]}, "entries[0].temperature must be a number from 0.05 to 20, or a list"),
        ({"temperature": []}, "entries[0].temperature must be a number"),
    ],
)
def test_wrong_temperatures_of_regions_are_named(change, named):
    document = record_of(entry(FINALS)).to_json()
    document["entries"][0] |= change
    assert problem_in(document).startswith(named)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"checkpoints": [*FINALS, FINALS[0]]}, "members.checkpoints must name no checkpoint twice"),
        ({"checkpoints": [FINALS[0], {**FINALS[1], "model": 1}]}, "members.checkpoints must name models that are listed"),
        ({"duplicates": [{**FINALS[1], "model": 1}]}, "members.duplicates must name models that are listed"),
        ({"step_size": 0}, "members.step_size must be a number above 0"),
        ({"precision": 16}, "members.precision must be text"),
        ({"flips": "some"}, "members.flips must be one of members"),
        ({"dropout": 0}, "members.dropout must be a whole number from 1 up"),
        ({"seed": -1}, "members.seed must be a whole number from 0 up"),
        ({"insert_dropout": 1.0}, "members.insert_dropout must be a number between 0 and 1"),
        ({"models": TWO_MODELS[:1]}, "members.models must be a list of at least two"),
        ({"models": [{"name": "A"}, {}]}, "members.models[0].plans_sha256 is missing"),
        ({"duplicates": [{"fold": 0}]}, "members.duplicates[0].checkpoint is missing"),
        ({"checkpoints": FINALS[:1]}, "members.checkpoints must name each of the folds and no other"),
        (
            {"previous": {"plans_sha256": "a" * 64, "checkpoints": [], "previous": {"plans_sha256": "a" * 64}}},
            "members.previous.previous.checkpoints is missing",
        ),
    ],
)
def test_wrong_members_are_named(change, named):
    document = record_of(entry(FINALS)).to_json()
    document["entries"][0]["members"] |= change
    assert problem_in(document) == f"entries[0].{named}"
