"""What is compared by `evaluate`: configurations from lists and files, and options that are refused."""

import json

import pytest

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.workflow.evaluate_options import EvaluateOptions, configurations_of


def of(model, **options):
    return configurations_of(model, EvaluateOptions(**options))


def test_by_default_the_given_members_are_evaluated_uncalibrated_and_calibrated(model):
    found = of(model, folds=[1], flips="off")
    assert [(item.name, item.calibration) for item in found] == [("uncalibrated", "none"), ("calibrated", "auto")]
    assert all(item.options["folds"] == [1] and item.options["flips"] == "off" for item in found)
    assert [item.name for item in of(model, calibration="none")] == ["uncalibrated"]
    assert found[0].members().folds == ((1,),)


def test_a_configuration_changes_what_it_names_and_takes_the_rest_from_the_options(model):
    given = [
        {"name": "flips back on", "flips": "mean"},
        {"name": "one fold", "folds": [0], "mode": "pool_prob", "calibration": "none"},
    ]
    mean, one = of(model, flips="off", folds=[0, 1], configurations=given, step_size=1.0, device="cpu")
    assert (mean.options["flips"], mean.options["folds"]) == ("mean", [0, 1])
    assert (one.options["flips"], one.options["folds"], one.options["mode"]) == ("off", [0], "pool_prob")
    assert {item.options["step_size"] for item in (mean, one)} == {1.0}
    assert json.loads(json.dumps(dict(one.options))) == one.options  # plain: another machine can take it


def test_paths_in_a_file_are_relative_to_it(model, tmp_path):
    record = tmp_path / "records" / "a.json"
    path = tmp_path / "configurations.json"
    listed = [{"name": "a", "model": "models/x", "calibration": "records/a.json"}]
    path.write_text(json.dumps({"configurations": listed}))
    (found,) = of(None, configurations=path)
    assert found.model == (str(tmp_path / "models" / "x"),)
    assert found.calibration == str(record)


@pytest.mark.parametrize(
    ("configurations", "named"),
    [
        ([], "must be a list"),
        ([{"folds": [0]}], "configuration 1 has no name"),
        ([{"name": "a\nb"}], "is no text on one line"),
        ([{"name": "half \ud800"}], "is no text on one line"),
        ([{"name": "a", "fold": 0}], "configuration a: 'fold' is not known"),
        ([{"name": "a b"}, {"name": "A_B"}], "two configurations are called"),
        ([{"name": "a", "flips": "some"}], "some"),
        ([{"name": "a", "mode": "best"}], "mode 'best' is unknown"),
    ],
)
def test_a_configuration_that_says_nothing_sensible_is_named(configurations, named, model):
    with pytest.raises(CalibUncertaintyError, match=named):
        of(model, configurations=configurations)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"workers": 0}, "number of workers"),
        ({"workers": True}, "number of workers"),
        ({"scheduler": "localhost"}, "tcp://host:8786"),
        ({"roi_mm": 0}, "above 0"),
        ({"roi_reference": "gt"}, "choose pred or union"),
        ({"keep_results": 1}, "must be true or false"),
        ({"measures": []}, "measures must be"),
        ({"mode": "best"}, "mode 'best' is unknown"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, named):
    with pytest.raises(CalibUncertaintyError, match=named):
        EvaluateOptions(**options)


def test_no_model_at_all_and_a_file_that_is_none_are_named(model, tmp_path):
    with pytest.raises(CalibUncertaintyError, match="names no model"):
        of(None)
    (tmp_path / "broken.json").write_text("[")
    with pytest.raises(CalibUncertaintyError, match=r"broken\.json is no readable JSON"):
        of(model, configurations=tmp_path / "broken.json")
