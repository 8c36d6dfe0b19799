"""What is averaged over members on request: squares, logarithms and votes, and the measures made of them, against brute force."""

import numpy as np
import pytest
from engine_parts import Told, predictor_of, prepared, told_case
from test_running_statistics import brute_force, faint_members
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib.inference import cells, member_sums
from CalibUncertaintyLib.inference.member_sums import MemberSums
from CalibUncertaintyLib.inference.opinions import Opinions
from CalibUncertaintyLib.inference.scratch import MEMORY_LIMIT_BYTES, Scratch
from CalibUncertaintyLib.model.heads import Heads
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.uncertainty.disagreement import disagreement_of, variation_ratio_of
from CalibUncertaintyLib.uncertainty.member_statistics import EXTRAS

REGIONS = {"background": 0, "Whole": [1, 2], "Node": 2}
# what the engine promises, written out: larger ones there must not loosen the tolerances here
WAKES_AT, LOG_CLIP = 1e-3, 1e-7
CLIPPED = np.log(WAKES_AT / LOG_CLIP)
HALF = 0.02  # of a logarithm: two steps of half precision at 8 to 16


def of_logits(members, temperature, sigmoid):
    """Means over members in double precision, by numpy alone: {name: (...)}, of logits (M, C, ...)."""
    z = np.asarray(members, np.float64) / np.reshape(np.broadcast_to(temperature, len(members[0])), (1, -1, 1, 1, 1))
    if sigmoid:
        logs = np.concatenate([-np.logaddexp(0, -z), -np.logaddexp(0, z)], axis=1)
        p, votes = np.exp(logs[:, : z.shape[1]]), z > 0
    else:
        logs = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
        p = np.exp(logs)
        votes = np.moveaxis(np.eye(z.shape[1])[z.argmax(axis=1)], -1, 1)
    both = np.concatenate([p, 1 - p], axis=1) if sigmoid else p
    entropy = -(both * np.log(np.maximum(both, 1e-300))).sum(axis=1)
    return {
        "mean": p.mean(axis=0), "entropy": entropy.mean(axis=0) / (z.shape[1] if sigmoid else 1),
        "squares": (p**2).sum(axis=1).mean(axis=0), "votes": votes.mean(axis=0),
        "log_probabilities": np.maximum(logs, np.log(LOG_CLIP)).mean(axis=0),
    }  # fmt: skip


def measures(found, n_members, sigmoid):
    """The measures of what was averaged, by the formulas of the library (which have tests of their own)."""
    single = {name: np.asarray(values, np.float32) for name, values in found.items()}
    extras = {name: single[name] for name in EXTRAS}
    return disagreement_of(single["mean"], single["entropy"], extras, n_members, sigmoid)


def ask(predictor, case, folder, temperatures, extras=EXTRAS, limit=MEMORY_LIMIT_BYTES, kept_bytes=0):
    """Whole arrays of the first temperature's means, and the voxels in cells awake at the end; all where logits are kept."""
    with Scratch(folder, limit) as scratch:
        opinions = Opinions.ask(
            predictor, case, scratch, Progress(), temperatures, extras=extras, kept_bytes=kept_bytes
        )
        shape, found = case.grid.ct_shape, {}
        for slab in opinions.slabs(opinions.whole()):
            parts = {"mean": slab.means.probability[0], "entropy": slab.means.entropy, **slab.means.extras}
            for name, values in parts.items():
                whole = found.setdefault(name, np.full((*values.shape[:-3], *shape), np.nan, np.float32))
                whole[(..., *slab.inside)] = values
        awake = np.full(shape, opinions._cells is None)
        for cell in np.ndindex(*opinions._cells.count) if opinions._cells else ():
            awake[opinions._cells.window(cell)] = opinions._cells.is_awake(cell)
    assert not any(np.isnan(values).any() for values in found.values())
    return found, awake


@pytest.mark.parametrize(
    ("of_plans", "of_ct", "temperatures", "regions"),
    [
        ({}, {}, [1.0], False),
        ({}, {"shape": (34, 40, 36)}, [2.5, 1.0], False),
        ({"resampling": {"order": 3}}, {"shape": (35, 40, 36)}, [1.0], False),
        ({}, {"shape": (34, 30, 28)}, [(2.0, 0.5), 1.0], True),
    ],
)
@pytest.mark.parametrize("kept_bytes", [0, 1 << 40])
def test_squares_logarithms_and_votes_are_those_of_brute_force(
    of_plans, of_ct, temperatures, regions, kept_bytes, tmp_path
):
    of_model = {"labels": REGIONS, "regions_class_order": (1, 2)} if regions else {}
    model = write_model(tmp_path, plans(**of_plans), folds=(0, 1, 2), **of_model)
    predictor = predictor_of(model, flips="off")
    case = prepared(predictor, write_ct(tmp_path / "ct.nii.gz", **of_ct))
    expected = of_logits(brute_force(predictor, case).members, temperatures[0], regions)
    found, awake = ask(predictor, case, tmp_path, temperatures, kept_bytes=kept_bytes)
    assert awake.mean() > (0.5 if kept_bytes == 0 else 0.999)
    for name, tolerance in (("squares", 1e-3), ("log_probabilities", HALF)):
        assert found[name].shape == expected[name].shape
        wrong = np.abs(found[name] - expected[name])[..., awake]
        assert np.quantile(wrong, 0.999) < tolerance
    votes = np.abs(found["votes"] - expected["votes"])
    assert (votes > 1e-6).mean() < 2e-3  # where rounding to half precision makes two structures equal
    ours, theirs = (measures(means, 3, regions) for means in (found, expected))
    for name, tolerance in (("epkl", 0.01), ("rmi", 0.01), ("var", 1e-3)):
        assert np.quantile(np.abs(ours[name] - theirs[name])[awake], 0.999) < tolerance
        assert ours[name].mean() > 5 * tolerance, "the comparison is empty: the members agree"


def sleepy_case(sigmoid, tmp_path):
    """Faint members on a grid of their own: some cells sleep to the end, some wake with the first member, some later.

    The last member alone sees something clearly at one place.
    """
    ct_shape = (61, 133, 110)
    case = told_case(
        (40, 100, 100),
        ct_shape,
        tuple(s * a / b for s, a, b in zip((2, 1.5, 1.5), (40, 100, 100), ct_shape, strict=True)),
    )
    members = faint_members((40, 100, 100))
    away = np.stack(np.meshgrid(*map(np.arange, (40, 100, 100)), indexing="ij")) - np.reshape(
        (20, 80, 20), (3, 1, 1, 1)
    )
    members[3, -1] += 26 * np.exp(-(away**2).sum(axis=0) / 18)
    if sigmoid:
        members = (members - members[:, :1])[:, 1:]
    predictor = Told(members, Heads(("Liver", "Node"), (1, 2), sigmoid), portion=3)
    return case, predictor, [case.grid.whole(np.asarray(logits, np.float16)) for logits in members]


@pytest.mark.parametrize("sigmoid", [False, True])
def test_cells_keep_the_promised_bounds_and_are_exact_where_no_member_slept(sigmoid, tmp_path, monkeypatch):
    case, predictor, on_ct = sleepy_case(sigmoid, tmp_path)
    woken = np.full(case.grid.ct_shape, -1)
    add = cells.Cells.add

    def watched(self, block, *rest):
        if not block.awake:
            woken[self.block_window(block)] = self.members
        add(self, block, *rest)

    monkeypatch.setattr(cells.Cells, "add", watched)
    found, awake = ask(predictor, case, tmp_path, [1.5])
    expected = of_logits(on_ct, 1.5, sigmoid)
    np.testing.assert_array_equal(awake, woken >= 0)
    at_once, late, never = woken == 0, woken > 0, woken < 0
    assert min(at_once.sum(), late.sum(), never.sum()) > 1000, "the comparison is empty"
    assert (np.abs(found["votes"] - expected["votes"]).max(axis=0) > 1e-6).mean() < 1e-4
    ours, theirs = (measures(means, 4, sigmoid) for means in (found, expected))
    wrong = {name: np.abs(ours[name] - theirs[name]) for name in ours}
    # nobody slept: as exact as half precision lets it be
    assert np.abs(found["squares"] - expected["squares"])[at_once].max() < WAKES_AT
    assert np.quantile(np.abs(found["log_probabilities"] - expected["log_probabilities"])[:, at_once], 0.999) < HALF
    assert np.quantile(wrong["epkl"][at_once], 0.999) < 0.01
    # everywhere else within what the module's docstring promises
    channels = 2 if sigmoid else 3
    background = slice(channels, None) if sigmoid else slice(0, 1)
    assert np.abs(found["squares"] - expected["squares"]).max() < 2 * WAKES_AT
    sleepers = late | never
    logs = np.abs(found["log_probabilities"] - expected["log_probabilities"])
    assert logs[background][:, sleepers].max() < WAKES_AT + 0.002
    assert logs[:, sleepers].max() < CLIPPED
    assert wrong["var"][sleepers].max() < 1.01 * WAKES_AT / (2 if sigmoid else 3) + 2e-4
    structures = expected["mean"].mean(axis=0) if sigmoid else 1 - expected["mean"][0]
    assert (ours["epkl"][never] < 1e-4).all()
    assert wrong["epkl"][never].max() < 0.011
    promised = 4 / 3 * (0.05 + WAKES_AT * np.log(2) + CLIPPED * structures)
    assert (wrong["epkl"] < promised)[late].all()
    assert ours["epkl"][late].max() > 0.3, "the comparison is empty: those who woke late agree"


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("faint", [[-7.0] * 4, [-30.0] * 4])
def test_sleepers_that_say_the_same_enter_in_full(faint, sigmoid, tmp_path):
    case = told_case((34, 40, 70), (41, 50, 66))
    heads = Heads(("Liver", "Node"), (1, 2), sigmoid)
    members = np.zeros((5, heads.channels, 34, 40, 70), np.float32)
    for logits, last in zip(members, [*faint, 0.5], strict=True):
        logits[:], logits[-1] = -30, last
        if not sigmoid:
            logits[0] = 0
    found, awake = ask(Told(members, heads, portion=2), case, tmp_path, [1.0])
    assert awake.all()
    expected = of_logits(members[..., :1, :1, :1], 1.0, sigmoid)
    for name in ("mean", "entropy", *EXTRAS):
        np.testing.assert_allclose(
            found[name], np.broadcast_to(expected[name], found[name].shape), rtol=1e-3, atol=1e-6
        )
    votes = variation_ratio_of(found["votes"], 5, sigmoid)
    np.testing.assert_allclose(votes, 0.1 if sigmoid else 0.2, atol=1e-6)  # one of five, for one of two regions


def test_sleepers_on_both_sides_of_the_limit_of_logarithms_are_off_by_no_more_than_promised(tmp_path):
    """Two say e^-7, two say e^-30, which counts as 1e-7; their mean logit counts as 1e-7, too."""
    case, heads = told_case((34, 40, 70)), Heads(("Node",), (1,), False)
    members = np.zeros((5, 2, 34, 40, 70), np.float32)
    for logits, last in zip(members, [-7.0, -30.0, -7.0, -30.0, 0.5], strict=True):
        logits[1] = last
    found, _ = ask(Told(members, heads), case, tmp_path, [1.0])
    expected = of_logits(members[..., :1, :1, :1], 1.0, False)
    wrong = np.abs(found["log_probabilities"] - expected["log_probabilities"])
    assert 0.8 * 4.5 * 0.8 < wrong[1].max() < 0.8 * CLIPPED
    assert wrong[0].max() < 0.8 * WAKES_AT
    ours, theirs = (measures(means, 5, False)["epkl"] for means in (found, expected))
    promised = 5 / 4 * 0.8 * (0.05 + CLIPPED * expected["mean"][1])
    assert (np.abs(ours - theirs) < promised).all()


@pytest.mark.parametrize("extras", [EXTRAS, ["votes"], ["log_probabilities", "squares"]])
def test_asking_for_more_changes_nothing_else_and_not_asking_costs_nothing(extras, tmp_path):
    case, predictor = (
        told_case((20, 60, 70)),
        Told(faint_members((20, 60, 70)), Heads(("Liver", "Node"), (1, 2), False)),
    )
    usual, _ = ask(predictor, case, tmp_path, [2.0, 1.0], extras=())
    more, _ = ask(predictor, case, tmp_path, [2.0, 1.0], extras=extras)
    everything, _ = ask(predictor, case, tmp_path, [2.0, 1.0])
    assert set(usual) == {"mean", "entropy"}
    assert set(more) == {"mean", "entropy", *extras}
    for name, values in more.items():
        np.testing.assert_array_equal(values, everything[name] if name in extras else usual[name])
    assert MemberSums(3, False, [1.0]).values == 3 + 1
    assert MemberSums(3, False, [1.0], EXTRAS).values == 3 + 1 + 1 + 3 + 3
    assert MemberSums(3, True, [1.0], EXTRAS).values == 3 + 1 + 1 + 6 + 3
    with pytest.raises(ValueError, match="extras"):
        MemberSums(3, False, [1.0], ["cubes"])


def test_extras_in_files_are_the_same_to_the_last_bit(tmp_path):
    case, predictor = (
        told_case((20, 60, 70)),
        Told(faint_members((20, 60, 70)), Heads(("Liver", "Node"), (1, 2), False)),
    )
    in_memory, _ = ask(predictor, case, tmp_path, [2.0])
    in_files, _ = ask(predictor, case, tmp_path, [2.0], limit=0)
    for name, values in in_memory.items():
        np.testing.assert_array_equal(values, in_files[name])


def test_the_two_floors_mean_the_same_by_the_same_names():
    from CalibUncertaintyLib.uncertainty.catalogue import LOG_CLIP as OF_MEASURES

    assert member_sums.EXTRAS == EXTRAS
    assert member_sums.LOG_CLIP == OF_MEASURES == LOG_CLIP
    assert cells.WAKES_AT == WAKES_AT
