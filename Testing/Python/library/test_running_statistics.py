"""Running statistics of the members against brute force: every member's logits kept, brought back by nnU-Net, and averaged."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from engine_parts import Told, few_slices, member_logits, on_ct_grid, predictor_of, prepared, told_case
from tiny_model import plans, rotation, write_ct, write_model

from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.inference import cells
from CalibUncertaintyLib.inference.boxes import Box
from CalibUncertaintyLib.inference.members import MemberPredictor, Prepared
from CalibUncertaintyLib.inference.opinions import Opinions
from CalibUncertaintyLib.inference.prepare import PreparedCase
from CalibUncertaintyLib.inference.scratch import MEMORY_LIMIT_BYTES, Scratch
from CalibUncertaintyLib.model.heads import Heads
from CalibUncertaintyLib.progress import Progress

REGIONS = {"background": 0, "Whole": [1, 2], "Node": 2}
WAKES_AT = 1e-3  # what the engine promises, written out: a larger one there must not loosen the tolerances here
# Of probabilities, where no member sees anything: what sleepers may be off by, twice over
ASLEEP = 2 * WAKES_AT
# Of entropies there: between a certain voxel and one with WAKES_AT spread over two structures, in nats
ENTROPY_ASLEEP = WAKES_AT * (1 - np.log(WAKES_AT / 2))
AWAKE = 2e-4


@dataclass
class Expected:
    """By brute force, float64 on the cropped CT grid. pooled: (C, ...); the others of each member, (M, ...)."""

    pooled: np.ndarray
    members: list[np.ndarray]
    sigmoid: bool

    def probability(self, temperature):
        return np.mean([self._p(logits, temperature) for logits in self.members], axis=0)

    def entropy(self, temperature):
        return np.mean([self._entropy(self._p(logits, temperature)) for logits in self.members], axis=0)

    def awake(self, temperatures):
        """Where any member's foreground exceeds the waking probability, at any temperature."""
        return np.any([self.foreground(logits, t) > WAKES_AT for logits in self.members for t in (1.0, *temperatures)], axis=0)

    def foreground(self, logits, temperature):
        p = self._p(logits, temperature)
        return p.max(axis=0) if self.sigmoid else 1 - p[0]

    def _p(self, logits, temperature):
        z = logits.astype(np.float64) / np.broadcast_to(np.asarray(temperature, float), len(logits))[:, None, None, None]
        if self.sigmoid:
            return 1 / (1 + np.exp(-z))
        e = np.exp(z - z.max(axis=0))
        return e / e.sum(axis=0)

    def _entropy(self, p):
        def terms(q):
            return -q * np.log(np.maximum(q, 1e-300))

        return (terms(p) + terms(1 - p)).mean(axis=0) if self.sigmoid else terms(p).sum(axis=0)


def brute_force(predictor, case) -> Expected:
    on_ct = [[] for _ in case.cases]
    on_grid = [[] for _ in case.cases]
    for member, logits in zip(predictor.members, member_logits(predictor, case), strict=True):
        on_grid[member.model].append(logits)
        on_ct[member.model].append(on_ct_grid(predictor, case, logits, member.model))
    pooled = 0
    for index, logits in enumerate(on_grid):  # as stock nnU-Net adds up folds, in half precision
        total = logits[0].clone()
        for other in logits[1:]:
            total += other
        if len(logits) > 1:
            total /= len(logits)
        pooled = pooled + len(logits) * on_ct_grid(predictor, case, total, index).astype(np.float64)
    return Expected(pooled / len(predictor.members), [m for of_model in on_ct for m in of_model], predictor.heads.sigmoid)


def whole(opinions, temperatures):
    """The pool and the means at every temperature over the whole cropped grid, out of the slabs."""
    shape, c = opinions.case.grid.ct_shape, opinions.n_classes
    box = Box(opinions.case.crop_start, tuple(a + n for a, n in zip(opinions.case.crop_start, shape, strict=True)))
    pooled = np.full((c, *shape), np.nan)
    means, entropy = np.full((len(temperatures), c, *shape), np.nan), np.full(shape, np.nan)
    for slab in opinions.slabs(box):
        pooled[(slice(None), *slab.inside)] = slab.pooled
        for index, p in enumerate(slab.means.probability):
            means[(index, slice(None), *slab.inside)] = p
        entropy[slab.inside] = slab.means.entropy
    assert not np.isnan(pooled).any()
    assert not np.isnan(means).any()
    return pooled, means, entropy


SUMMED_UP, KEPT = 0, 1 << 40  # bytes of the disk that members' logits may take


def ask(predictor, case, folder, temperatures, limit=MEMORY_LIMIT_BYTES, kept_bytes=SUMMED_UP, **options):
    """Pool, means and entropies over the whole grid, how many cells are awake (None where logits are kept), effective members."""
    with Scratch(folder, limit) as scratch:
        opinions = Opinions.ask(predictor, case, scratch, Progress(), temperatures, kept_bytes=kept_bytes, **options)
        found = whole(opinions, temperatures)
        return *found, opinions._cells and opinions._cells.awake, opinions.effective_members


def assert_exact(found, expected, temperatures):
    """As `assert_agrees`, but for rounding to half precision everywhere: nobody sleeps."""
    pooled, means, entropy, awake, _ = found
    assert awake is None
    np.testing.assert_allclose(pooled, expected.pooled, atol=0.01, rtol=1e-3)
    for index, temperature in enumerate(temperatures):
        wrong = np.abs(means[index] - expected.probability(temperature))
        assert np.quantile(wrong, 0.999) < AWAKE
        assert wrong.max() < WAKES_AT
    wrong = np.abs(entropy - expected.entropy(temperatures[0]))
    assert np.quantile(wrong, 0.999) < 5 * AWAKE
    assert wrong.max() < 5 * WAKES_AT


def assert_agrees(found, expected, temperatures):
    pooled, means, entropy = found[:3]
    awake = expected.awake(temperatures)
    np.testing.assert_allclose(pooled, expected.pooled, atol=0.01, rtol=1e-3)  # one step of half precision
    for index, temperature in enumerate(temperatures):
        wrong = np.abs(means[index] - expected.probability(temperature)).max(axis=0)
        assert wrong.max() < ASLEEP
        assert np.quantile(wrong[awake], 0.999) < AWAKE
        # where a logit of ten and more rounds the other way to half precision, or sleepers entered a cell by their mean
        assert wrong[awake].max() < WAKES_AT
    wrong = np.abs(entropy - expected.entropy(temperatures[0]))
    assert wrong.max() < ENTROPY_ASLEEP
    assert np.quantile(wrong[awake], 0.999) < 5 * AWAKE
    return awake


CASES = {
    "plain": ({}, {}, [1.0]),
    "several temperatures": ({}, {}, [2.5, 1.0]),
    "finer than the plan, oblique, empty border": (
        {}, {"spacing": (0.8, 0.8, 1.1), "shape": (34, 46, 48), "direction": rotation(20), "empty_border": 4}, [1.0],
    ),
    "thick slices, nearest through plane": (
        {"spacing": (5.0, 1.0, 1.0), "patch": (8, 16, 16)}, {"spacing": (0.9, 0.9, 4.0), "shape": (40, 34, 36)}, [1.3],
    ),
    "coarser than the plan": (
        {"spacing": (1.0, 1.0, 1.0), "patch": (32, 32, 32)}, {"spacing": (2.0, 1.5, 3.0), "shape": (35, 34, 20)}, [1.0],
    ),
    "slices of 10 mm on a fine grid": (
        {"spacing": (1.0, 2.0, 2.0), "patch": (4, 24, 24)}, {"spacing": (2.0, 2.0, 10.0), "shape": (20, 24, 24)}, [1.0],
    ),
    "cubic": ({"resampling": {"order": 3}}, {"shape": (35, 40, 36)}, [1.0]),
    "transposed": ({"transpose": (2, 0, 1)}, {"shape": (34, 20, 40)}, [1.0]),
    "2D": ({"spacing": (1.5, 1.5), "patch": (16, 16)}, {"shape": (20, 34, 36), "spacing": (1.2, 1.2, 3.0)}, [1.0]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_means_over_members_are_those_of_brute_force(name, tmp_path):
    of_plans, of_ct, temperatures = CASES[name]
    model = write_model(tmp_path, plans(**of_plans), folds=(0, 1, 2))
    predictor = predictor_of(model, flips="off")
    case = prepared(predictor, write_ct(tmp_path / "ct.nii.gz", **of_ct))
    expected = brute_force(predictor, case)
    found, kept = (ask(predictor, case, tmp_path, temperatures, kept_bytes=way) for way in (SUMMED_UP, KEPT))
    assert_agrees(found, expected, temperatures)
    assert_exact(kept, expected, temperatures)
    np.testing.assert_array_equal(kept[0], found[0])  # the pool is the same to the last bit
    assert kept[-1] == found[-1]
    spread = np.std([expected.foreground(logits, 1.0) for logits in expected.members], axis=0)
    assert spread.mean() > 0.05, "the comparison is empty: the members agree"


def faint_members(shape, count=4, heads=3):
    """Logits that are sure of background but for a few blobs, each fainter in some members than in others."""
    generator = np.random.default_rng(2)
    at = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    members = generator.normal(0, 0.5, (count, heads, *shape)).astype(np.float32)
    members[:, 0] += 16.0
    for height in (13.0, 18.0, 24.0):
        centre = (generator.random(3) * shape)[:, None, None, None]
        spot = np.exp(-((at - centre) ** 2).sum(axis=0) / 18)
        members[:, -1] += spot * (height * generator.uniform(0.2, 1.0, count)[:, None, None, None])
    return members


@pytest.mark.parametrize("ct_shape", [(40, 100, 100), (61, 133, 110)])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_cells_that_sleep_and_cells_that_wake_late_agree_with_brute_force(sigmoid, ct_shape, tmp_path):
    spacing = tuple(s * a / b for s, a, b in zip((2, 1.5, 1.5), (40, 100, 100), ct_shape, strict=True))
    case = told_case((40, 100, 100), ct_shape, spacing)
    members = faint_members((40, 100, 100))
    if sigmoid:
        members -= members[:, :1]
        members = members[:, 1:]
    heads = Heads(("Liver", "Node"), (1, 2), sigmoid)
    predictor = Told(members, heads, portion=3)
    on_ct = [case.grid.whole(np.asarray(logits, np.float16)) for logits in members]
    total = predictor._logits[0].clone()
    for other in predictor._logits[1:]:
        total += other
    expected = Expected(case.grid.whole((total / 4).numpy()).astype(np.float64), on_ct, sigmoid)
    found = ask(predictor, case, tmp_path, [1.5, 1.0])
    awake = assert_agrees(found, expected, [1.5, 1.0])
    assert_exact(ask(predictor, case, tmp_path, [1.5, 1.0], kept_bytes=KEPT), expected, [1.5, 1.0])
    cells_in_all = int(np.prod([-(-n // size) for n, size in zip(ct_shape, cells.CELL, strict=True)]))
    assert 0 < found[3] < 0.7 * cells_in_all, "the comparison is empty: all cells are awake, or none"
    assert 1e-4 < awake.mean() < 0.3
    first = expected.foreground(expected.members[0], 1.5)
    assert (awake & (first <= WAKES_AT)).any(), "the comparison is empty: no cell wakes late"


def entropy_of(p, sigmoid):
    """In nats, of a foreground probability that is one structure's, of two."""
    binary = -p * np.log(p) - (1 - p) * np.log(1 - p)
    return binary / 2 if sigmoid else binary


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("models", [1, 2])
@pytest.mark.parametrize("plan", ["the CT's grid", "finer CT", "cubic"])
def test_members_asked_before_a_cell_woke_enter_it_in_full(plan, models, sigmoid, tmp_path):
    """Members that are almost sure, and the last one that is not: what all of them say is known in closed form.

    With two models the last member belongs to the second, whose own earlier members sleep, too.
    """
    faint, last = 0.9 * WAKES_AT, 0.4
    ct_shape = (34, 40, 70) if plan == "the CT's grid" else (41, 50, 66)
    case = told_case((34, 40, 70), ct_shape, **({"resampling": {"order": 3}} if plan == "cubic" else {}))
    heads = Heads(("Liver", "Node"), (1, 2), sigmoid)
    members = np.zeros((5, heads.channels, 34, 40, 70), np.float32)
    for logits, p in zip(members, [faint, faint, faint, faint, last], strict=True):
        logits[:], logits[-1] = -30, np.log(p / (1 - p))
        if not sigmoid:
            logits[0] = 0
    predictor = Told(members, heads, portion=2)
    if models == 2:
        case = Prepared((case.cases[0], case.cases[0]))
        predictor.members = [replace(member, model=int(member.index > 1)) for member in predictor.members]
    _, (means,), entropy, awake, _ = ask(predictor, case, tmp_path, [1.0])
    assert awake == int(np.prod([-(-n // size) for n, size in zip(ct_shape, cells.CELL, strict=True)]))
    np.testing.assert_allclose(means[-1], (4 * faint + last) / 5, rtol=1e-3)
    np.testing.assert_allclose(entropy, (4 * entropy_of(faint, sigmoid) + entropy_of(last, sigmoid)) / 5, rtol=1e-3)


@pytest.mark.parametrize("way", [SUMMED_UP, KEPT])
@pytest.mark.parametrize("limit", [0, 300_000])
def test_statistics_in_files_are_the_same_to_the_last_bit(limit, way, tmp_path):
    case, predictor = told_case((40, 60, 70)), Told(faint_members((40, 60, 70)), Heads(("Liver", "Node"), (1, 2), False))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    in_memory = ask(predictor, case, tmp_path / "a", [2.0, 1.0], 1 << 30, way)
    in_files = ask(predictor, case, tmp_path / "b", [2.0, 1.0], limit, way)
    for memory, file in zip(in_memory[:3], in_files[:3], strict=True):
        np.testing.assert_array_equal(memory, file)
    assert in_memory[3:] == in_files[3:]
    assert list((tmp_path / "b").iterdir()) == []


@pytest.mark.parametrize("temperatures", [[1.0], [(2.0, 0.5), 1.0]])
def test_regions_are_averaged_one_by_one_at_temperatures_of_their_own(temperatures, tmp_path):
    model = write_model(tmp_path, plans(), folds=(0, 1), labels=REGIONS, regions_class_order=(1, 2))
    predictor = predictor_of(model, flips="off")
    assert predictor.heads.sigmoid
    case = prepared(predictor, write_ct(tmp_path / "ct.nii.gz", shape=(34, 30, 28)))
    expected = brute_force(predictor, case)
    assert_agrees(ask(predictor, case, tmp_path, temperatures), expected, temperatures)
    assert_exact(ask(predictor, case, tmp_path, temperatures, kept_bytes=KEPT), expected, temperatures)


def test_members_that_are_flips_dropout_samples_and_folds_agree_with_brute_force(tmp_path):
    model = write_model(tmp_path, plans(patch=(16, 16, 16)), folds=(0, 1))
    predictor = predictor_of(model, flips="members", dropout=2, insert_dropout=0.3, seed=5)
    assert len(predictor.members) == 2 * 8 * 2
    case = prepared(predictor, few_slices(tmp_path / "ct.nii.gz", (17, 18, 20)))
    expected = brute_force(predictor, case)
    assert_agrees(ask(predictor, case, tmp_path, [1.0]), expected, [1.0])
    assert_exact(ask(predictor, case, tmp_path, [1.0], kept_bytes=KEPT), expected, [1.0])


def test_models_with_grids_of_their_own_agree_with_brute_force(tmp_path):
    """Two plans, one of them interpolated by a rule that is not separable; each weighs as many as it has members."""
    fine = write_model(tmp_path / "a", plans(), folds=(0, 1))
    coarse = write_model(tmp_path / "b", plans(spacing=(3.0, 2.0, 2.0), patch=(8, 16, 16)), folds=(0, 1), seed=9)
    cubic = write_model(tmp_path / "c", plans(resampling={"order": 3}), folds=(0, 1), seed=19)
    ct = write_ct(tmp_path / "ct.nii.gz", shape=(34, 34, 36), empty_border=3)
    for models in ([fine, coarse], [coarse, cubic], [cubic, fine]):
        predictor = predictor_of(models, flips="off")
        case = prepared(predictor, ct)
        expected = brute_force(predictor, case)
        found, kept = (ask(predictor, case, tmp_path, [1.5], kept_bytes=way) for way in (SUMMED_UP, KEPT))
        assert_agrees(found, expected, [1.5])
        assert_exact(kept, expected, [1.5])
        np.testing.assert_array_equal(kept[0], found[0])


@pytest.mark.parametrize("way", [SUMMED_UP, KEPT])
def test_a_window_anywhere_reads_what_the_whole_reads(way, tmp_path):
    model = write_model(tmp_path, plans(), folds=(0, 1))
    predictor = predictor_of(model, flips="off")
    case = prepared(predictor, write_ct(tmp_path / "ct.nii.gz", shape=(50, 70, 68), empty_border=3))
    with Scratch(tmp_path) as scratch:
        opinions = Opinions.ask(predictor, case, scratch, Progress(), [1.0], kept_bytes=way)
        pooled, (means,), entropy = whole(opinions, [1.0])
        n = case.grid.ct_shape
        for start, stop in (((3, 5, 7), (21, 40, 33)), ((15, 31, 31), (17, 33, 33)), ((0, 0, 0), (1, 1, 1)), ((9, 9, 9), n)):
            box = Box(
                tuple(a + b for a, b in zip(start, case.crop_start, strict=True)),
                tuple(a + b for a, b in zip(stop, case.crop_start, strict=True)),
            )
            voxels = 0
            for slab in opinions.slabs(box):
                there = tuple(slice(a + s.start, a + s.stop) for a, s in zip(start, slab.inside, strict=True))
                np.testing.assert_array_equal(slab.pooled, pooled[(slice(None), *there)])
                np.testing.assert_array_equal(slab.means.probability[0], means[(slice(None), *there)].astype(np.float32))
                np.testing.assert_array_equal(slab.means.entropy, entropy[there].astype(np.float32))
                voxels += slab.pooled[0].size
            assert voxels == box.voxels
        outside = Box(tuple(0 for _ in n), case.full_shape)  # partly beyond nnU-Net's crop
        assert sum(slab.pooled[0].size for slab in opinions.slabs(outside)) == int(np.prod(n))


class Copies(MemberPredictor):
    """Asks member 0 in every member's place."""

    def _load(self, source):
        super()._load((source[0], 0, source[2]))


def test_members_that_are_copies_have_no_mutual_information_and_count_as_one(tmp_path):
    from CalibUncertaintyLib.model.member_set import MemberSet
    from CalibUncertaintyLib.uncertainty.measures import mutual_information_of

    model = write_model(tmp_path, plans(), folds=(0, 1, 2, 3))
    predictor = Copies(MemberSet.choose(model, flips="off"), "cpu")
    case = prepared(predictor, write_ct(tmp_path / "ct.nii.gz"))
    _, (means,), entropy, _, effective = ask(predictor, case, tmp_path, [1.0], kept_bytes=KEPT)
    mi = mutual_information_of(means.astype(np.float32), entropy.astype(np.float32), 4)
    assert float(np.abs(mi).max()) < 1e-5
    assert effective == {"number": 1.0, "spread": 0.0}


def test_the_number_of_members_is_theirs_and_not_the_temperatures(tmp_path):
    model = write_model(tmp_path, plans(), folds=(0, 1, 2))
    predictor = predictor_of(model, flips="off")
    case = prepared(predictor, write_ct(tmp_path / "ct.nii.gz"))
    told = [ask(predictor, case, tmp_path, [temperature])[-1] for temperature in (1.0, 4.0)]
    assert told[0] == told[1]


def test_a_prepared_case_is_nnunets_own(tmp_path):
    """So that the brute force above rests on stock's preprocessing and not on ours."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    content = plans()
    model = write_model(tmp_path, content, folds=(0,))
    ct = write_ct(tmp_path / "ct.nii.gz", empty_border=3, shape=(30, 34, 36))
    predictor = predictor_of(model)
    case: PreparedCase = prepared(predictor, ct).cases[0]
    manager = PlansManager(content)
    data, _, _ = DefaultPreprocessor(verbose=False).run_case(
        [str(ct)], None, manager, manager.get_configuration("3d_fullres"), predictor._models[0].folder.dataset
    )
    np.testing.assert_array_equal(case.data.numpy(), np.asarray(data))


def test_hundreds_of_members_are_added_without_losing_digits_or_overflowing(tmp_path):
    heads, shape = Heads(("a",), (1,), False), (6, 20, 20)
    generator = np.random.default_rng(0)
    said = [(60 + generator.normal(0, 0.5, (2, *shape))).astype(np.float16) for _ in range(1200)]  # their sum exceeds 65504
    predictor, case = Told(said, heads), told_case(shape)
    predictor.adds_as_stock = False
    with Scratch(tmp_path) as scratch:
        opinions = Opinions.ask(predictor, case, scratch, Progress())
        (slab,) = list(opinions.slabs(opinions.whole()))
    expected = np.mean([values.astype(np.float64) for values in said], axis=0)
    assert float(np.abs(slab.pooled - expected).max()) <= 0.03  # half of a half's last digit at 60, and rounding


def test_a_sum_that_half_precision_cannot_hold_is_refused(tmp_path):
    heads, shape = Heads(("a",), (1,), False), (6, 20, 20)
    predictor, case = Told([np.full((2, *shape), 40000, np.float16)] * 2, heads), told_case(shape)
    with Scratch(tmp_path) as scratch, pytest.raises(CalibUncertaintyError, match="half precision; ask fewer members"):
        Opinions.ask(predictor, case, scratch, Progress())
