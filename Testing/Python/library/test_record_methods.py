"""What each way to calibrate asks of its entry: temperatures of all, of regions or members, or a method's parameters."""

import pytest
from test_record import changed, entry_for, extended_document, fingerprint_of

from CalibUncertaintyLib.model.record import CalibrationRecord
from CalibUncertaintyLib.model.record_check import problem_in


@pytest.fixture
def document():
    """A right record of five checkpoints with one temperature."""
    made = CalibrationRecord.for_model(fingerprint_of(0, 1, 2, 3, 4))
    made.put(entry_for(0, 1, 2, 3, 4))
    return made.to_json()


@pytest.mark.parametrize(("name", "value", "named"), [
    ("temperature", [1.5], "temperature must be one number or as many as the model has labels (2), got 1"),
    ("member_temperature", [1.5], "member_temperature must be one number or as many as the model has labels (2), got 1"),
    ("temperature_interval", [[1.0, 2.0]], "temperature_interval must have as many intervals as the model has labels (2)"),
])
def test_one_number_is_not_enough_for_two_regions(name, value, named):
    assert problem_in(changed(extended_document(), ("entries", 0, name), value)) == f"entries[0].{named}"


METHOD = {"method": "platt", "parameters": {"method": "platt"}, "temperature": None, "temperature_interval": None}
OF_MEMBERS = {"mode": "member", "temperature": None, "temperature_interval": None}


@pytest.mark.parametrize("entry", [
    METHOD, METHOD | {"mode": "pool_prob"}, OF_MEMBERS | {"member_temperatures": [1.0, 1.5, 2.0, 2.5, 20.0]}, {"mode": "shared"},
    {"roi": {"distance_mm": 15.0, "reference": "body"}},
])  # fmt: skip
def test_every_way_to_calibrate_has_a_right_record(document, entry):
    document["entries"][0] |= entry
    assert problem_in(document) == ""


@pytest.mark.parametrize(("entry", "named"), [
    (METHOD | {"parameters": {"method": "vector"}}, "parameters must be an object of the method platt"),
    (METHOD | {"mode": "member"}, "mode must be one of pool_logit, pool_prob for the method platt"),
    (METHOD | {"mode": "shared"}, "mode must be one of pool_logit, pool_prob for the method platt"),
    (METHOD | {"temperature": 1.5}, "temperature must be null for the method platt"),
    ({"mode": "shared", "temperature": None}, "temperature must be a number from 0.05 to 20"),
    (OF_MEMBERS, "member_temperatures must be a temperature for each of the checkpoints"),
    (OF_MEMBERS | {"member_temperatures": [1.5] * 4}, "member_temperatures must be a temperature for each of the checkpoints"),
    (OF_MEMBERS | {"member_temperatures": [1.5] * 6}, "member_temperatures must be a temperature for each of the checkpoints"),
    (OF_MEMBERS | {"member_temperatures": [1.5] * 4 + [21]}, "member_temperatures must be a temperature for each of the"),
    (OF_MEMBERS | {"member_temperatures": [1.5] * 5, "temperature": 1.5}, "temperature must be null where each member has"),
])  # fmt: skip
def test_what_a_way_to_calibrate_asks_for_is_named(document, entry, named):
    document["entries"][0] |= entry
    assert problem_in(document).startswith(f"entries[0].{named}")
