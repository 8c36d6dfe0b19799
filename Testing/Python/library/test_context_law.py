"""The context law is the distribution of right voxels at the same kind of place, and survives being written down."""

import base64
import json
from itertools import pairwise

import numpy as np
import pytest
from context_scene import LABELS, scene

from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.uncertainty.context_law import ContextLaw, ContextLawFit
from CalibUncertaintyLib.uncertainty.distance_bands import bands_of
from CalibUncertaintyLib.uncertainty.pooled_law import PooledLawFit
from CalibUncertaintyLib.uncertainty.quantile_tables import (
    LEVELS,
    TAILS,
    band_tables,
    merged_bands,
    table_of,
    tails_by_code,
)
from CalibUncertaintyLib.value_codes import COUNT, codes_of, values_of


def ranked(sample, values):
    """1 - F with mid-ranks, counted."""
    sample = np.sort(np.asarray(sample, np.float64))
    up_to, below = np.searchsorted(sample, values, "right"), np.searchsorted(sample, values, "left")
    return 1 - (up_to + below) / 2 / len(sample)


def law_of(u, label, signed, least=2000, labels=LABELS, correct=None):
    fit = ContextLawFit(labels, least_voxels=least)
    fit.add("P", u, label, signed, np.ones(len(u), bool) if correct is None else correct)
    return fit.fit()


def as_counted(found, expected):
    """A table of 512 quantiles answers to half a step: 0.0018 in the bulk, 1.4 % of a small tail."""
    return np.abs(found - expected) <= np.maximum(0.0019, 0.016 * expected) * (expected > 0.1) + 0.016 * expected + 1e-4


def test_the_levels_are_fine_enough_for_tails_of_one_in_ten_thousand():
    assert TAILS.shape == (LEVELS,)
    assert (np.diff(TAILS) < 0).all()
    assert np.abs(np.diff(TAILS)).max() < 0.0036
    low = TAILS[TAILS <= 0.1]
    assert (low[1:] / low[:-1]).min() > 0.97
    assert TAILS[-1] == pytest.approx(1e-4)
    assert np.isclose(TAILS, 0.05, rtol=1e-12).sum() == 1


def test_a_table_answers_with_the_share_of_voxels_above_a_value():
    random = np.random.default_rng(0)
    sample = random.beta(0.4, 3.0, 200_000).astype(np.float32)
    tails = tails_by_code(table_of(np.bincount(codes_of(sample), minlength=COUNT))[np.newaxis])[0]
    asked = np.quantile(sample, [0.001, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9997])
    assert as_counted(tails[codes_of(asked)], ranked(sample, asked)).all()
    assert tails[0] > 0.98
    assert (np.diff(tails) <= 0).all()
    assert tails[-1] == 0


def test_ties_count_half():
    # 0 in 7 of 10 voxels, as deep inside a structure, and 0.5 in the others
    counts = np.zeros(COUNT, np.int64)
    counts[0], counts[codes_of(0.5)] = 7000, 3000
    tails = tails_by_code(table_of(counts)[np.newaxis])[0]
    low, between, high = tails[codes_of(np.array([0.0, 0.2, 0.5]))]
    assert [low, between, high] == pytest.approx([0.65, 0.3, 0.15], abs=0.002)
    only = np.zeros(COUNT, np.int64)
    only[77] = 5
    assert tails_by_code(table_of(only)[np.newaxis])[0, [76, 77, 78]].tolist() == [1.0, 0.5, 0.0]


def test_a_table_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one voxel"):
        table_of(np.zeros(COUNT, np.int64))


def test_thin_bands_merge_outward_and_the_rest_with_the_nearest():
    assert merged_bands([5, 5, 5], 5) == [[0], [1], [2]]
    assert merged_bands([2, 2, 9, 1, 5], 5) == [[0, 1, 2], [3, 4]]
    assert merged_bands([9, 2, 2], 5) == [[0, 1, 2]]
    assert merged_bands([9, 0, 7, 0], 5) == [[0], [1, 2, 3]]
    assert merged_bands([1, 2, 1], 5) == []
    counts = np.zeros((8, COUNT), np.int64)
    counts[2, 4] = 3
    assert band_tables(counts, 5) is None
    assert band_tables(counts, 5, always=True).table_of_band == (0,) * 8
    assert band_tables(counts * 0, 5, always=True) is None


def test_every_voxel_is_ranked_among_right_voxels_of_its_class_and_band():
    random = np.random.default_rng(1)
    n = 60_000
    label, signed = random.integers(0, 3, n).astype(np.uint8), random.uniform(0, 18, n).round(2)
    signed[label > 0] *= -1
    u = random.random(n) ** (1 + label + np.abs(signed))
    correct = random.random(n) > 0.1
    u[~correct] = 1.0  # wrong voxels must not raise what is usual
    law = law_of(u, label, signed, least=100, correct=correct)
    found = law.tail(u, label, signed)
    assert found.dtype == np.float32
    edges = [0, 1, 2, 3, 5, 7, 10, 15, 99]
    for value in LABELS:
        for low, high in pairwise(edges):
            place = (label == value) & (np.abs(signed) >= low) & (np.abs(signed) < high)
            assert place.any()
            expected = ranked(values_of(codes_of(u[place & correct])), values_of(codes_of(u[place])))
            near = found[place] - expected
            assert np.abs(near).max() < 0.006  # of 500 voxels each counts 0.002
    assert law.status == "ok"
    assert sum(law.voxels) >= correct.sum()


def test_the_two_sides_of_a_border_are_told_apart_by_the_label():
    u = np.concatenate([np.linspace(0.1, 0.2, 3000), np.linspace(0.7, 0.8, 3000)])
    label = np.repeat([0, 1], 3000)
    signed = np.where(label > 0, -0.0, 0.0)
    law = law_of(u, label, signed)
    middle = law.tail(np.array([0.15, 0.75, 0.45, 0.45]), np.array([0, 1, 0, 1]), np.array([0.0, -0.0, 0.0, -0.0]))
    assert middle == pytest.approx([0.5, 0.5, 0.0, 1.0], abs=0.01)


def test_a_thin_band_takes_what_lies_outward_of_it():
    random = np.random.default_rng(2)
    signed = np.repeat([0.0, 1.5, 12.0], [100, 5000, 100])
    u = random.random(5200) * np.repeat([0.1, 0.5, 1.0], [100, 5000, 100])
    law = law_of(u, np.zeros(5200, int), signed)
    asked = np.full(8, 0.25)
    found = law.tail(asked, np.zeros(8, int), np.array([0, 1.5, 2.5, 4, 6, 8, 12, 15]))
    assert found == pytest.approx(ranked(u, asked), abs=0.002), "one law for all: each other band has too few voxels"


def test_a_rare_class_takes_the_law_of_all_structures_and_then_of_all_classes():
    random = np.random.default_rng(3)
    n = 9000
    label = np.repeat([0, 1, 2], [4000, 4900, 100])
    u = np.where(label > 0, 0.5, 0.0) + 0.5 * random.random(n)
    signed = np.where(label > 0, -1.5, 1.5)
    law = law_of(u, label, signed)
    own = ranked(u[label > 0], [0.7])
    for value in (2, 9, 400):  # too few, and never seen
        assert law.tail(np.array([0.7]), np.array([value]), np.array([-1.5])) == pytest.approx(own, abs=0.003)
    few = law_of(u[:4100], label[:4100], signed[:4100], labels=(1, 2))
    # 100 structure voxels: all classes by band
    expected = ranked(u[:4100], [0.3])
    assert few.tail(np.array([0.3]), np.array([1]), np.array([-1.5])) == pytest.approx(expected, abs=0.003)
    assert few.tail(np.array([0.3]), np.array([1]), np.array([-12.0])) == pytest.approx(expected, abs=0.003)


def test_without_a_right_voxel_nothing_is_unusual():
    for law in (ContextLawFit(LABELS).fit(), law_of(*scene().of_roi(), correct=np.zeros(scene().roi.sum(), bool))):
        assert law.status == "no_voxels"
        assert law.tail(np.array([[1.0]]), np.array([[1]]), np.array([[-3.0]])).tolist() == [[1.0]]
        assert not law.medians.any()
        assert ContextLaw.from_json(json.loads(json.dumps(law.to_json()))).status == "no_voxels"


def test_a_few_right_voxels_make_one_law():
    law = law_of(np.array([0.2, 0.4, 0.6]), np.array([0, 1, 1]), np.array([0.0, 0.0, -4.0]))
    assert law.voxels == (3,)
    assert law.tail(np.array([0.5, 0.4]), np.array([0, 2]), np.array([15.0, -7.0])) == pytest.approx(
        [1 / 3, 0.5], abs=0.002
    )
    assert law.medians == pytest.approx(np.full(8, 0.4), rel=1e-3)


def test_pieces_and_cases_add_up():
    patient, other = scene(0), scene(1)
    at_once, in_pieces = ContextLawFit(LABELS), ContextLawFit(LABELS)
    for name, one in (("A", patient), ("B", other)):
        values, right = one.of_roi(), np.random.default_rng(0).random(int(one.roi.sum())) > 0.2
        at_once.add(name, *values, right)
        for part in np.array_split(np.arange(len(right)), 7):
            in_pieces.add(name, *(array[part] for array in values), right[part])
    assert at_once.fit().to_json() == in_pieces.fit().to_json()
    assert at_once.fit().cases == ("A", "B")


def test_medians_are_those_of_right_voxels_by_unsigned_distance():
    patient = scene(4)
    u, label, signed = patient.of_roi()
    correct = np.random.default_rng(0).random(len(u)) > 0.3
    law = law_of(u, label, signed, correct=correct)
    for band, (low, high) in enumerate([(0, 1), (1, 2), (2, 3), (3, 5), (5, 7), (7, 10)]):
        place = correct & (np.abs(signed) >= low) & (np.abs(signed) < high)
        assert law.medians[band] == pytest.approx(np.median(u[place]), rel=2e-3)


def test_a_rising_map_of_the_values_changes_no_rank_but_by_shared_codes():
    patient = scene(5)
    u, label, signed = patient.of_roi()
    expected = law_of(u, label, signed).tail(u, label, signed)
    for rescaled in (u**2, np.sqrt(u) / 3, u * 200):
        found = law_of(rescaled, label, signed).tail(rescaled, label, signed)
        assert np.abs(found - expected).max() < 0.01
        assert np.abs(found - expected).mean() < 0.001
    doubled = law_of(u / 4, label, signed).tail(u / 4, label, signed)
    assert np.array_equal(doubled, expected), "a power of two keeps every code apart"


def test_renaming_structures_renames_the_law():
    patient = scene(6)
    u, label, signed = patient.of_roi()
    renamed = np.array([0, 300, 7], np.uint16)[label]
    law = law_of(u, renamed, signed, labels=(300, 7))
    assert np.array_equal(law.tail(u, renamed, signed), law_of(u, label, signed).tail(u, label, signed))


def test_a_law_is_small_when_written_and_the_same_when_read():
    patient = scene(7)
    u, label, signed = patient.of_roi()
    pooled = PooledLawFit(2.5)
    pooled.add("P", u, signed)
    law = law_of(u, label, signed).with_pooled(pooled.fit())
    text = json.dumps(law.to_json())
    again = ContextLaw.from_json(json.loads(text))
    assert len(text) < 1500 * (len(law.voxels) + len(law.pooled.voxels)) + 1500
    assert again.to_json() == law.to_json()
    assert np.array_equal(again.tail(u, label, signed), law.tail(u, label, signed))
    assert np.array_equal(again.pooled.rank(u, signed), law.pooled.rank(u, signed))
    assert np.array_equal(again.medians, law.medians)
    assert again.measure == "entropy"
    assert again.cases == again.pooled.cases == ("P",)
    assert again.pooled.sigma_mm == 2.5


def damaged_documents():
    patient = scene(8)
    pooled = PooledLawFit()
    pooled.add("P", patient.u[patient.roi], patient.signed[patient.roi])
    whole = law_of(*patient.of_roi()).with_pooled(pooled.fit()).to_json()
    falling = np.frombuffer(base64.b64decode(whole["tables"]["uint16"]), "<u2")[::-1].tobytes()
    turned = base64.b64encode(falling).decode()
    changes = {
        "schema": {"schema": "another"}, "newer": {"schema_version": 2}, "edges": {"edges_mm": [0.0]},
        "measure": {"measure": None}, "labels": {"labels": [1, 2]}, "twice": {"labels": [0, 1, 1]},
        "not a number": {"labels": [0, True, 2]}, "rows": {"table_of_band": whole["table_of_band"][:-1]},
        "row": {"table_of_band": [[0] * 7, *whole["table_of_band"][1:]]},
        "no such table": {"table_of_band": [[99] * 8, *whole["table_of_band"][1:]]},
        "no row": {"table_of_band": [0, 1, 2, 3]}, "voxels": {"voxels": whole["voxels"][:-1]},
        "none": {"voxels": [0] * len(whole["voxels"])}, "tables": {"tables": None},
        "base64": {"tables": {**whole["tables"], "uint16": "@@"}},
        "cut short": {"tables": {**whole["tables"], "uint16": whole["tables"]["uint16"][:-8]}},
        "odd": {"tables": {**whole["tables"], "uint16": whole["tables"]["uint16"][:-4]}},
        "falling": {"tables": {**whole["tables"], "uint16": turned}},
        "shape": {"tables": {**whole["tables"], "shape": [1, 2]}}, "medians": {"medians": [0.1]},
        "null": {"medians": [None] * 8}, "nan": {"medians": [float("nan")] * 8}, "cases": {"cases": "P"},
        "pooled": {"pooled": []}, "sigma": {"pooled": {**whole["pooled"], "sigma_mm": 0}},
        "pooled band": {"pooled": {**whole["pooled"], "table_of_band": [0]}},
    }  # fmt: skip
    return {name: {**whole, **change} for name, change in changes.items()} | {"list": [], "nothing": {}}


@pytest.mark.parametrize(("name", "document"), damaged_documents().items(), ids=damaged_documents().keys())
def test_a_damaged_law_is_refused_in_one_line(name, document):
    with pytest.raises(CalibUncertaintyError, match=r"^the context law .*; calibrate the model again$") as raised:
        ContextLaw.from_json(document)
    assert "\n" not in str(raised.value)


def test_values_and_labels_that_make_no_sense_are_refused():
    fit, one = ContextLawFit(LABELS), np.ones(1)
    with pytest.raises(CalibUncertaintyError, match=r"case P1: .*NaN"):
        fit.add("P1", one * np.nan, np.array([1]), one, one > 0)
    for match, label in (("not among", np.array([5])), ("whole numbers", np.array([-1])), ("whole numbers", one)):
        with pytest.raises(ValueError, match=match):
            fit.add("P1", one, label, one, one > 0)
    with pytest.raises(ValueError, match="one shape"):
        fit.add("P1", one, np.array([1, 2]), one, one > 0)
    with pytest.raises(ValueError, match="labels"):
        ContextLawFit([-1])
    law = law_of(*scene().of_roi())
    for broken in (law, ContextLawFit(LABELS).fit()):
        with pytest.raises(CalibUncertaintyError, match="NaN"):
            broken.tail(one * np.nan, np.array([1]), one)


def test_a_pooled_value_is_ranked_among_those_of_its_band():
    random = np.random.default_rng(9)
    n = 40_000
    distance = random.uniform(-18, 18, n).round(2)
    pooled = values_of(codes_of(random.random(n) / (1 + np.abs(distance))))
    fit = PooledLawFit(least_voxels=500)
    for number, part in enumerate(np.array_split(np.arange(n), 3)):
        fit.add(f"P{number % 2}", pooled[part], distance[part])
    law = fit.fit()
    found = law.rank(pooled, distance)
    edges = [0, 1, 2, 3, 5, 7, 10, 15, 99]
    for low, high in pairwise(edges):
        place = (np.abs(distance) >= low) & (np.abs(distance) < high)
        assert np.abs(found[place] - (1 - ranked(pooled[place], pooled[place]))).max() < 0.003
    assert found.dtype == np.float32
    assert law.cases == ("P0", "P1")


def test_a_pooled_law_of_nothing_ranks_nothing():
    law = PooledLawFit().fit()
    assert law.status == "no_voxels"
    assert law.rank(np.ones((2, 2)), np.ones((2, 2))).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(CalibUncertaintyError, match="NaN"):
        law.rank(np.array([np.nan]), np.ones(1))
    with pytest.raises(ValueError, match="shape"):
        law.rank(np.ones(2), np.ones(1))
    with pytest.raises(CalibUncertaintyError, match="case Q: "):
        PooledLawFit().add("Q", np.array([np.nan]), np.ones(1))
    with pytest.raises(ValueError, match="distances"):
        PooledLawFit().add("Q", np.ones(2), np.ones(1))


def test_a_distance_on_an_edge_belongs_to_the_band_beyond_it_whatever_its_rounding():
    for band, edge in enumerate((1, 2, 3, 5, 7, 10, 15), start=1):
        rounded = np.nextafter(np.float32(edge), np.float32(0))  # as the root of a sum of squares may come out
        assert bands_of([edge, -edge, rounded, edge - 0.01]).tolist() == [band, band, band, band - 1]
    assert bands_of([0.0, -0.0, np.inf]).tolist() == [0, 0, 7]


def test_nothing_lies_above_what_is_higher_than_all_that_was_seen():
    u, label, signed = scene().of_roi()
    law = law_of(u, label, signed)
    for higher in (1.001 * float(u.max()), 2.0, 100.0, 1e9):
        assert (law.tail(np.full(u.shape, higher, np.float32), label, signed) == 0).all()
