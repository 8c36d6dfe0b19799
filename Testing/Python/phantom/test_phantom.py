"""The CT phantom: reproducible, geometric, CT-like, and ambiguous where it says so."""

import json

import numpy as np
import pytest

from CalibUncertaintyLib.volume import Volume

NODES = 5


def volumes_ml(phantom):
    """Volume of each structure in mL."""
    array = phantom.labels.array
    return np.array([np.count_nonzero(array == index) for index in phantom.label_names]) * phantom.labels.voxel_volume_ml


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / max(1, np.count_nonzero(a) + np.count_nonzero(b))


def test_the_same_seed_gives_the_same_voxels_and_another_seed_another_patient(phantom):
    from phantom import make_phantom

    again, other = make_phantom(11), make_phantom(12)
    np.testing.assert_array_equal(again.ct.array, phantom.ct.array)
    for first, second in zip(again.raters, phantom.raters, strict=True):
        np.testing.assert_array_equal(first.array, second.array)
    assert np.count_nonzero(other.labels.array != phantom.labels.array) > 1000


def test_every_structure_is_there_and_the_ct_has_the_grid_of_its_labels(phantom):
    assert set(np.unique(phantom.labels.array)) == {0, *phantom.label_names}
    assert phantom.ct.array.shape == phantom.labels.array.shape == phantom.node_probability.array.shape
    assert phantom.ct.array.dtype == np.int16
    assert len(phantom.nodes) >= 2


def test_hounsfield_units_are_those_of_tissue(phantom):
    ct, label = phantom.ct.array, phantom.labels.array
    assert ct.min() >= -1024
    assert ct.max() <= 3071
    means = {name: ct[label == index].mean() for index, name in phantom.label_names.items()}
    assert 90 < means["Liver"] < 125
    assert 100 < means["Spleen"] < 140
    assert 130 < means["Kidneys"] < 200
    assert 140 < means["Aorta"] < 200
    assert 20 < means["LymphNodes"] < 60
    assert ((ct > -130) & (ct < -70)).mean() > 0.05  # fat
    assert (ct > 300).mean() > 0.003  # bone
    assert (ct[:, 30:60, 40:70] < -700).any()  # gas inside the body


def test_nodes_are_faint_against_what_surrounds_them(phantom):
    for node in phantom.nodes:
        assert 10 <= node.contrast_hu <= 25
        assert 6 <= node.diameter_mm <= 16


def test_raters_disagree_more_at_nodes_than_at_organs(phantom):
    pairs = [(a, b) for a in range(3) for b in range(a)]
    agreement = {
        index: np.mean([dice(phantom.raters[a].array == index, phantom.raters[b].array == index) for a, b in pairs])
        for index in phantom.label_names
    }
    assert agreement[NODES] < 0.93
    assert min(value for index, value in agreement.items() if index != NODES) > agreement[NODES]
    assert agreement[1] > 0.97


def test_the_node_probability_is_how_often_raters_of_such_patients_agree():
    from phantom import make_phantom

    stated, drawn = [], []
    for seed in range(20, 26):
        phantom = make_phantom(seed, noise_hu=0.0)
        maybe = phantom.ambiguous.array > 0
        stated.append(phantom.node_probability.array[maybe].mean())
        drawn.append(np.mean([(rater.array == NODES)[maybe].mean() for rater in phantom.raters]))
    # Every patient's true border is one draw, so six patients agree with the stated probability only on average.
    assert np.mean(stated) == pytest.approx(np.mean(drawn), abs=0.1)
    assert np.std(drawn) > 0.03


def test_the_reference_is_the_majority_of_the_raters(phantom):
    votes = np.sum([rater.array == NODES for rater in phantom.raters], axis=0)
    assert (phantom.labels.array[votes >= 3] == NODES).all()
    assert (phantom.labels.array[votes == 0] != NODES).all()


def test_the_same_patient_has_the_same_volumes_at_another_spacing():
    from phantom import make_phantom

    coarse = make_phantom(11, noise_hu=0.0)
    fine = make_phantom(11, spacing_zyx=(2.0, 1.5, 1.5), noise_hu=0.0)
    assert fine.ct.array.size > 3 * coarse.ct.array.size
    change = np.abs(volumes_ml(fine) / volumes_ml(coarse) - 1)
    assert change[:4].max() < 0.03
    assert change[4] < 0.15  # nodes have some fifty voxels each on the coarse grid


@pytest.mark.parametrize("flip", [False, True])
def test_an_oblique_grid_sees_the_same_patient_and_keeps_its_direction(phantom, flip, tmp_path):
    from phantom import make_phantom, oblique_direction, write_phantom

    direction = oblique_direction((12.0, -9.0, 17.0), flip_x=flip)
    assert np.linalg.det(direction) == pytest.approx(-1 if flip else 1)
    turned = make_phantom(11, direction_lps=direction)
    assert np.abs(volumes_ml(turned) / volumes_ml(phantom) - 1)[:3].max() < 0.03  # the aorta leaves every grid
    stored = Volume.read(write_phantom(turned, tmp_path) / "ct.nii.gz")
    np.testing.assert_allclose(stored.direction_lps, direction, atol=1e-5)
    for index in (1, 2, 3):  # the same place in the patient, not only the same size
        centres = [p.labels.lps_from_index(np.argwhere(p.labels.array == index).mean(axis=0)) for p in (turned, phantom)]
        assert np.linalg.norm(centres[0] - centres[1]) < 1.0


def test_noise_is_correlated_as_ct_noise_is_more_in_the_plane_than_through_it():
    from phantom import correlated_noise

    noise = correlated_noise((40, 128, 128), (3.0, 1.0, 1.0), np.random.default_rng(3))
    assert noise.std() == pytest.approx(1, abs=1e-3)

    def correlation(axis, voxels):
        n = noise.shape[axis]
        return float(np.mean(noise.take(range(n - voxels), axis) * noise.take(range(voxels, n), axis)))

    assert correlation(2, 1) > 0.5
    assert correlation(1, 1) > 0.5
    assert correlation(0, 1) < correlation(2, 3)  # both 3 mm apart
    power = np.abs(np.fft.rfft(noise, axis=2)) ** 2
    frequency = np.fft.rfftfreq(128, 1.0)
    middle, high = (power[..., (frequency > a) & (frequency < b)].mean() for a, b in ((0.02, 0.1), (0.3, 0.5)))
    assert middle > 50 * high


def test_noise_is_in_the_image_and_can_be_left_out():
    from phantom import make_phantom

    quiet, loud = make_phantom(11, noise_hu=0.0), make_phantom(11, noise_hu=12.0)
    inside = quiet.labels.array == 1
    difference = loud.ct.array[inside].astype(float) - quiet.ct.array[inside]
    assert 6 < difference.std() < 13


@pytest.mark.parametrize("value", [0, -1024])
def test_a_padded_background_is_one_value_well_outside_the_body(value):
    from phantom import make_phantom

    ct = make_phantom(11, padding_hu=value).ct.array
    corners = [ct[:, 0, 0], ct[:, -1, 0], ct[:, 0, -1], ct[:, -1, -1]]
    assert all((corner == value).all() for corner in corners)
    assert (ct[ct.shape[0] // 2] != value).mean() > 0.4


def test_an_even_number_of_raters_is_refused():
    from phantom import make_phantom

    with pytest.raises(ValueError, match="odd"):
        make_phantom(11, raters=4)


def test_the_command_line_writes_a_patient_that_can_be_read_back(tmp_path, capsys):
    from phantom import main

    assert main(["--seed", "5", "--out", str(tmp_path), "--spacing", "6", "5", "5", "--oblique", "--raters", "3"]) == 0
    ct, labels = Volume.read(tmp_path / "ct.nii.gz"), Volume.read(tmp_path / "labels.nii.gz")
    assert ct.array.shape == labels.array.shape
    assert ct.spacing_zyx == pytest.approx((6, 5, 5))
    assert len(list(tmp_path.glob("rater_*.nii.gz"))) == 3
    assert json.loads((tmp_path / "phantom.json").read_text(encoding="utf-8"))["seed"] == 5
    assert str(tmp_path) in capsys.readouterr().out
