"""What calibration learns to be usual is what `segment` compares with: laws in the record, context maps in the Result."""

import json

import numpy as np
import pytest
from test_calibrate_ways import cases, trained  # noqa: F401 (fixtures: two folds, and cases with errors)

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.model.record import CalibrationRecord
from CalibUncertaintyLib.uncertainty.context_law import ContextLaw
from CalibUncertaintyLib.uncertainty.distance_aware import distance_aware_entropy
from CalibUncertaintyLib.uncertainty.exceedance import ebcu, ebcu_p
from CalibUncertaintyLib.uncertainty.interface_distance import signed_distance
from CalibUncertaintyLib.uncertainty.region_calibration import RegionCalibration
from CalibUncertaintyLib.workflow.calibrate import calibrate
from CalibUncertaintyLib.workflow.chosen_measures import ALL, STANDARD
from CalibUncertaintyLib.workflow.context_maps import CONTEXT
from CalibUncertaintyLib.workflow.segment import segment

STEP = 2.0**-20


@pytest.fixture(scope="module")
def record(trained, cases, tmp_path_factory):  # noqa: F811
    path = tmp_path_factory.mktemp("record") / "record.json"
    calibrate(cases[:2], trained, path, flips="off", bootstrap=0, roi_mm=6.0, mode="pool_logit")
    return path


@pytest.fixture(scope="module")
def result(trained, cases, record, tmp_path_factory):  # noqa: F811
    out = tmp_path_factory.mktemp("out") / "result"
    return segment(cases[2].ct, trained, out, flips="off", calibration=record, roi_mm=6.0, measures="all")


def test_the_law_in_the_record_counts_the_right_voxels_near_the_prediction(record, cases):  # noqa: F811
    (entry,) = CalibrationRecord.read(record).entries
    law = ContextLaw.from_json(entry.context)
    assert law.status == "ok"
    assert law.cases == tuple(case.id for case in cases[:2])
    accuracy = entry.figures["after"]["pooled"]["accuracy"]
    right = round(accuracy * entry.figures["after"]["pooled"]["n"])
    of_rows = [sum(law.voxels[table] for table in set(row)) for row in law.table_of_band.tolist()]
    # every voxel of these small CTs lies near a structure; a class with few voxels takes the tables of several
    assert 0.5 * right < max(of_rows) <= right
    assert law.pooled.status == "ok"


def test_context_maps_are_those_of_the_result_s_own_entropy_and_labels(result, record):
    law = ContextLaw.from_json(CalibrationRecord.read(record).entries[0].context)
    entropy = result.uncertainty("entropy")
    label = _cut(result, entropy)
    u = entropy.array / np.float32(np.log(3))
    spacing = entropy.spacing_zyx
    signed = signed_distance(label, spacing)
    roi = result.distance.array <= 6.0 + 1e-4
    pooled = ebcu(u, label, signed, roi, spacing, law)
    wanted = {
        "dae": distance_aware_entropy(u, signed), "dae_linear": distance_aware_entropy(u, signed, "dae_linear"),
        "dae_resid": distance_aware_entropy(u, signed, "dae_resid", medians=law.medians),
        "ebcu": pooled, "ebcu_p": ebcu_p(pooled, signed, roi, law.pooled),
    }  # fmt: skip
    for name, values in wanted.items():
        found = result.uncertainty(name).array
        assert values.max() > 0, name
        # entropy is stored rounded down by up to a step, which may carry a voxel into the next bin of a table
        close = np.abs(found - values) <= 4 * STEP
        assert close.mean() > 0.97, name
        assert np.abs(found - values).max() < 0.05, name
    assert (result.uncertainty("ebcu_self").array <= 1).all()


def _cut(result, volume):
    start = np.round(result.segmentation.index_from_lps(volume.origin_lps)).astype(int)
    return result.segmentation.array[tuple(slice(a, a + n) for a, n in zip(start, volume.array.shape, strict=True))]


def test_every_measure_has_its_threshold_frozen_in_the_record(result, record):
    stored = CalibrationRecord.read(record).entries[0].thresholds
    assert set(stored) == set(ALL)
    for entry in result.provenance["maps"]["uncertainty"]:
        assert entry["threshold_source"] == "stored"
        assert entry["threshold"] == stored[entry["measure"]]["value"]


def test_the_standard_choice_holds_the_two_that_are_meant_to_be_read(trained, cases, record, tmp_path):  # noqa: F811
    result = segment(cases[2].ct, trained, tmp_path / "out", flips="off", calibration=record)
    made = {entry["measure"] for entry in result.provenance["maps"]["uncertainty"] if entry["file"]}
    assert made == set(STANDARD)
    with pytest.raises(CalibUncertaintyError, match="was not computed"):
        result.uncertainty("dae_resid")


def test_without_calibration_a_measure_that_needs_a_law_says_so(trained, cases, tmp_path):  # noqa: F811
    result = segment(cases[2].ct, trained, tmp_path / "out", flips="off", calibration="none", measures="all")
    status = {entry["measure"]: entry["status"] for entry in result.provenance["maps"]["uncertainty"]}
    assert {name for name in CONTEXT if status[name] == "no_law"} == {"dae_resid", "ebcu", "ebcu_p"}
    assert result.uncertainty("ebcu_self").array.max() > 0
    with pytest.raises(CalibUncertaintyError, match="calibrate the model"):
        result.uncertainty("ebcu")
    with pytest.raises(CalibUncertaintyError, match="what is usual in calibration cases"):
        segment(cases[2].ct, trained, tmp_path / "other", flips="off", calibration="none", measure="ebcu")
    assert not (tmp_path / "other").exists()


def test_regions_can_be_made_of_a_context_measure(trained, cases, record, tmp_path):  # noqa: F811
    result = segment(
        cases[2].ct, trained, tmp_path / "out", flips="off", calibration=record, measure="ebcu", measures=["entropy"],
        min_region_ml=0.0,
    )  # fmt: skip
    made = {entry["measure"] for entry in result.provenance["maps"]["uncertainty"] if entry["file"]}
    assert made == {"entropy", "ebcu"}
    assert result.provenance["threshold"]["measure"] == "ebcu"
    assert result.regions
    peak = max(region.peak for region in result.regions)
    assert peak == pytest.approx(float(result.uncertainty("ebcu").array.max()), abs=1e-6)


def test_a_damaged_law_is_named_and_nothing_is_written(trained, cases, record, tmp_path):  # noqa: F811
    from CalibUncertaintyLib.model.record_hash import with_content_hash

    document = json.loads(record.read_text(encoding="utf-8"))
    document["entries"][0]["context"]["tables"] = "AAAA"
    damaged = tmp_path / "record.json"
    damaged.write_text(json.dumps(with_content_hash(document)))
    with pytest.raises(CalibUncertaintyError) as error:
        segment(cases[2].ct, trained, tmp_path / "out", flips="off", calibration=damaged)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_regions_carry_the_chance_that_the_record_holds_for_their_kind(trained, cases, record, tmp_path):  # noqa: F811
    stored = CalibrationRecord.read(record).entries[0].regions
    assert set(stored) == {"entropy", "mi", "dae", "ebcu"}
    options = {"flips": "off", "calibration": record, "roi_mm": 6.0}
    result = segment(cases[2].ct, trained, tmp_path / "out", **options)
    calibration = RegionCalibration.from_json(stored["entropy"]["calibration"])
    assert calibration.cases == 2
    assert result.regions
    for region in result.regions:
        known = calibration.chance_of(region.kind, region.score)
        assert (region.chance, region.chance_n) == (known["chance"], known["chance_n"])
        assert ("in 10" in region.reason) == (region.chance is not None)
    assert any(region.chance is not None for region in result.regions)
    # listed in another way, regions are others than those whose truth is known
    other = segment(cases[2].ct, trained, tmp_path / "other", **options, merge_gap_mm=0.0)
    assert all(region.chance is None for region in other.regions)


def test_the_chances_are_those_of_regions_listed_on_the_calibration_cases(trained, cases, record, tmp_path):  # noqa: F811
    """What `segment` lists on each calibration case, held against its reference by hand, gives the stored numbers of regions."""
    counted = {}
    for case in cases[:2]:
        result = segment(case.ct, trained, tmp_path / case.id, flips="off", calibration=record, roi_mm=6.0)
        for region in result.regions:
            counted[region.kind] = counted.get(region.kind, 0) + 1
    stored = CalibrationRecord.read(record).entries[0].regions["entropy"]["calibration"]["kinds"]
    assert {kind: sum(of["n"]) for kind, of in stored.items()} == counted
