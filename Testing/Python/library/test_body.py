"""The patient's body in a CT: against floods one voxel at a time, and on scenes that people scan."""

import numpy as np
import pytest

from CalibUncertaintyLib.body import body_mask, body_of, slice_axis_of
from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.volume import Volume

pytest.importorskip("cc3d")
SPACING = (3.0, 1.0, 1.0)
AIR, FOAM, LUNG, FAT, TISSUE = -1000.0, -940.0, -840.0, -100.0, 40.0


def flooded(places):
    """The pieces of a set of (z, y, x), joined by faces."""
    left, pieces = set(places), []
    while left:
        piece, edge = set(), [left.pop()]
        while edge:
            z, y, x = edge.pop()
            piece.add((z, y, x))
            around = {(z + 1, y, x), (z - 1, y, x), (z, y + 1, x), (z, y - 1, x), (z, y, x + 1), (z, y, x - 1)} & left
            left -= around
            edge += around
        pieces.append(piece)
    return pieces


def in_slices(places):
    """The pieces of a set of (z, y, x), joined by faces within their slice."""
    return [piece for z in {z for z, _, _ in places} for piece in flooded({p for p in places if p[0] == z})]


def neighbours(places):
    return {(z, y + i, x + j) for z, y, x in places for i, j in ((0, 1), (0, -1), (1, 0), (-1, 0))}


def by_hand(ct, spacing):
    """The definition, voxel by voxel."""
    everything = set(np.ndindex(ct.shape))
    rows, columns = ct.shape[1:]
    pixel_mm2 = spacing[1] * spacing[2]
    dense = {p for p in everything if ct[p] > -300}
    for piece in in_slices(everything - dense):
        thin = sum(1 for p in piece if not ct[p] >= -900)
        if len(piece) * pixel_mm2 >= 1000 and thin < 0.1 * len(piece):
            dense |= piece
    up, side = (max(1, round(3.0 / step)) for step in spacing[1:])

    def of_core(p, up, side):
        window = ((p[0], y, x) for y in range(p[1] - up, p[1] + up + 1) for x in range(p[2] - side, p[2] + side + 1))
        return all(q in dense or not (0 <= q[1] < rows and 0 <= q[2] < columns) for q in window)

    core = {p for p in dense if of_core(p, up, side)}
    if not core:
        core, up, side = dense, 0, 0
    pieces = flooded(core)
    most = max(map(len, pieces), default=0)
    found = set().union(*(piece for piece in pieces if len(piece) >= 0.5 * most))
    for _ in range(up + side):
        found |= neighbours(found) & dense
    touched = neighbours(found)
    for piece in in_slices(dense - found):
        if len(piece) * pixel_mm2 <= 300 and piece & touched:
            found |= piece
    for hole in in_slices(everything - found):
        if all(0 < y < rows - 1 and 0 < x < columns - 1 for _, y, x in hole):
            found |= hole
    mask = np.zeros(ct.shape, bool)
    for p in found:
        mask[p] = True
    return mask


def random_scene(random, shape):
    """Blocks of everything, with specks."""
    coarse = random.choice(
        [AIR, AIR, AIR, FOAM, LUNG, FAT, TISSUE, TISSUE, TISSUE],
        [-(-n // size) for n, size in zip(shape, (2, 4, 4), strict=True)],
    )
    for axis in range(3):
        coarse = np.repeat(coarse, 4 if axis else 2, axis)
    ct = coarse[tuple(slice(0, n) for n in shape)] + random.normal(0, 30, shape)
    specks = random.random(shape) < 0.08
    ct[specks] = random.choice([AIR, LUNG, TISSUE], int(specks.sum()))
    return ct.astype(np.float32)


@pytest.mark.parametrize("seed", range(40))
def test_the_body_is_what_floods_of_single_voxels_say(seed):
    random = np.random.default_rng(seed)
    shape = (int(random.integers(1, 5)), int(random.integers(1, 26)), int(random.integers(1, 26)))
    # large pixels, so that a lung and a thin part are few of them; and squares of one to three voxels to each side
    spacing = (2.0, float(random.choice([1.0, 3.0, 8.0])), float(random.choice([1.5, 3.0, 11.0])))
    ct = random_scene(random, shape)
    assert np.array_equal(body_mask(ct, spacing), by_hand(ct, spacing))


def test_the_oracle_sees_bodies_that_differ_from_the_whole_and_from_nothing():
    shares = [by_hand(random_scene(np.random.default_rng(s), (3, 20, 20)), (2.0, 3.0, 3.0)).mean() for s in range(12)]
    assert sum(0.05 < share < 0.95 for share in shares) >= 8


@pytest.mark.parametrize("seed", range(6))
def test_turning_mirroring_and_stacking_the_same_ct_does_not_change_the_body(seed):
    random = np.random.default_rng(100 + seed)
    ct = random_scene(random, (4, 22, 17))
    found = body_mask(ct, (2.0, 3.0, 3.0))
    assert np.array_equal(body_mask(ct[::-1, ::-1, ::-1], (2.0, 3.0, 3.0)), found[::-1, ::-1, ::-1])
    assert np.array_equal(body_mask(ct.transpose(0, 2, 1), (2.0, 3.0, 3.0)), found.transpose(0, 2, 1))
    for axis in (1, 2):
        turned = np.moveaxis(ct, 0, axis)
        spacing = tuple(2.0 if n == axis else 3.0 for n in range(3))
        assert np.array_equal(body_mask(turned, spacing, axis), np.moveaxis(found, 0, axis))


@pytest.mark.parametrize("seed", range(6))
def test_there_are_no_holes_in_a_slice_and_air_at_the_border_stays_out(seed):
    ct = random_scene(np.random.default_rng(200 + seed), (3, 24, 24))
    ct[:, [0, -1]] = ct[:, :, [0, -1]] = AIR
    found = body_mask(ct, SPACING)
    assert not found[:, 0].any()
    for plane in found:
        outside = {(0, *p) for p in np.argwhere(~plane)}
        assert all(any(y in (0, 23) or x in (0, 23) for _, y, x in piece) for piece in flooded(outside))


def ellipse(shape, middle, radii):
    y, x = np.indices(shape)
    return ((y - middle[0]) / radii[0]) ** 2 + ((x - middle[1]) / radii[1]) ** 2 <= 1


def chest(shape=(4, 150, 200), seed=0):
    """A chest of 1 mm pixels in air: (HU with noise, the body as drawn)."""
    body = ellipse(shape[1:], (65, 100), (50, 85))
    hu = np.where(body, TISSUE, AIR)
    for side in (60, 140):
        hu[ellipse(shape[1:], (62, side), (36, 30))] = LUNG
    hu[ellipse(shape[1:], (70, 100), (6, 6))] = AIR  # the trachea
    ct = np.broadcast_to(hu, shape) + np.random.default_rng(seed).normal(0, 20, shape)
    return ct.astype(np.float32), np.broadcast_to(body, shape)


def test_lungs_and_airways_are_inside():
    ct, drawn = chest()
    assert np.array_equal(body_mask(ct, SPACING), drawn)


def test_a_thin_wall_before_the_lung_holds():
    ct, drawn = chest()
    ct[:, ellipse(ct.shape[1:], (65, 100), (46, 81)) & (np.arange(200) < 92)] = LUNG  # up to 4 mm below the skin
    assert np.array_equal(body_mask(ct, SPACING), drawn)


def test_a_table_is_left_out_also_where_the_skin_touches_its_shell():
    ct, drawn = chest()
    for top in (121, 116, 113):  # clear of the skin, touching it, pressed into it
        lying = ct.copy()
        table = np.zeros(ct.shape[1:], bool)
        table[top : top + 25, 5:195] = True
        inner = np.zeros_like(table)
        inner[top + 2 : top + 23, 7:193] = True
        lying[:, table & ~drawn[0]] = FAT
        lying[:, inner & ~drawn[0]] = FOAM
        found = body_mask(lying, SPACING)
        assert found[drawn].all()
        more = found & ~drawn
        # no more than the shell below the contact, and a few millimetres beside it
        assert more.sum() <= 0.02 * drawn.sum()
        assert not more[:, top + 3 :].any()
        assert not more[:, :, :40].any()


def test_a_hand_width_of_solid_table_apart_from_the_skin_is_left_out():
    ct, drawn = chest()
    ct[:, 125:146, 20:180] = FAT
    assert np.array_equal(body_mask(ct, SPACING), drawn)


def test_ears_and_the_second_leg_belong_to_the_patient():
    head = ellipse((120, 200), (60, 60), (45, 40))
    head[55:75, 98:101] = head[55:58, 99:104] = True  # an ear, 3 mm thick
    other = ellipse((120, 200), (60, 155), (40, 36))
    hu = np.where(head | other, TISSUE, AIR)
    drawn = np.stack([head | other] * 3)
    assert np.array_equal(body_mask(np.stack([hu] * 3), SPACING), drawn)
    small = np.where(head | ellipse((120, 200), (60, 155), (20, 20)), TISSUE, AIR)
    assert np.array_equal(body_mask(np.stack([small] * 3), SPACING), np.stack([head] * 3))


def test_a_head_keeps_its_sinuses_and_loses_the_air_before_an_open_mouth():
    skull = ellipse((140, 140), (70, 70), (60, 50))
    hu = np.where(skull, TISSUE, AIR)
    sinus = ellipse((140, 140), (30, 70), (8, 12))
    hu[sinus] = AIR
    mouth = np.zeros_like(skull)
    mouth[:40, 66:74] = True
    closed, opened = hu.copy(), hu.copy()
    opened[mouth] = AIR
    found = body_mask(np.stack([closed, opened, closed]), SPACING)
    assert np.array_equal(found[0], skull)
    assert np.array_equal(found[2], skull)
    assert not found[1][sinus | mouth].any()
    assert found[1][skull & ~sinus & ~mouth].mean() > 0.999


@pytest.mark.parametrize("window", [np.s_[:, 40:90, 40:150], np.s_[:, 40:90, 60:140], np.s_[1:2, 35:95, 40:160]])
def test_a_ct_cropped_inside_the_body_is_all_body_with_lungs_cut_by_the_border(window):
    ct, _ = chest()
    assert body_mask(ct[window], SPACING).all()


def test_a_ct_without_any_air_is_all_body():
    ct = np.random.default_rng(0).normal(TISSUE, 30, (3, 40, 40))
    assert body_mask(ct, SPACING).all()
    volume = volume_of(np.rint(ct).astype(np.int16))
    assert body_of(volume).all()


def test_one_slice_has_a_body_too():
    ct, drawn = chest()
    assert np.array_equal(body_mask(ct[:1], SPACING), drawn[:1])
    assert np.array_equal(body_of(volume_of(ct[:1])), drawn[:1])


def test_what_is_no_number_and_padding_below_air_are_outside():
    ct, drawn = chest()
    for value in (np.nan, -3024.0, -np.inf):
        padded = ct.copy()
        padded[:, ~ellipse(ct.shape[1:], (65, 100), (64, 99))] = value
        assert np.array_equal(body_mask(padded, SPACING), drawn)


def test_air_alone_has_no_body_and_that_is_said():
    ct = np.random.default_rng(0).normal(AIR, 20, (3, 30, 30))
    assert not body_mask(ct, SPACING).any()
    with pytest.raises(CalibUncertaintyError, match="case 7 shows no body: no voxel exceeds -300 HU; take a distance"):
        body_of(volume_of(ct), "case 7")


def test_something_thin_alone_is_the_body_there_is():
    ct = np.full((2, 30, 30), AIR)
    ct[:, 10:14, 5:25] = TISSUE
    assert np.array_equal(body_mask(ct, SPACING), ct > 0)


def mr_like(kind):
    random = np.random.default_rng(3)
    ct, drawn = chest(seed=3)
    return {
        "shifted": ct - ct.min(),  # HU + 1024, as some export it
        "magnitude": np.abs(np.where(drawn, 300.0, 0.0) + random.normal(0, 8, ct.shape)) * 3,
        "masked": np.where(drawn, np.maximum(ct, 1), 0.0),
        "z-scored": (ct - ct.mean()) / ct.std(),
        "0 to 1": (ct - ct.min()) / np.ptp(ct),
        "constant": np.full(ct.shape, 40.0),
    }[kind]


@pytest.mark.parametrize("kind", ["shifted", "magnitude", "masked", "z-scored", "0 to 1", "constant"])
def test_values_that_are_no_hounsfield_units_are_refused_in_one_line(kind):
    with pytest.raises(CalibUncertaintyError, match="the scan") as raised:
        body_of(volume_of(mr_like(kind)), "the scan")
    assert "\n" not in str(raised.value)


def volume_of(array, direction=((1, 0, 0), (0, 1, 0), (0, 0, 1))):
    return Volume(np.asarray(array), SPACING, (0.0, 0.0, 0.0), np.asarray(direction, float))


def test_slices_are_axial_whatever_the_order_of_the_axes():
    ct, drawn = chest()
    # sagittal slices: the array's first axis is left to right, its second the patient's length
    turned = np.moveaxis(ct, 2, 0)
    volume = Volume(turned, (1.0, 3.0, 1.0), (0.0, 0.0, 0.0), np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], float))
    assert slice_axis_of(volume) == 1
    assert np.array_equal(body_of(volume), np.moveaxis(drawn, 2, 0))
    assert slice_axis_of(volume_of(ct)) == 0
    assert slice_axis_of(volume_of(ct, np.diag([1, -1, -1]))) == 0


def test_what_is_no_volume_is_refused():
    for ct, spacing in ((np.zeros((3, 3)), SPACING), (np.zeros((3, 3, 3)), (1.0, 0.0, 1.0))):
        with pytest.raises(ValueError, match="expected a"):
            body_mask(ct, spacing)


@pytest.mark.real_data
def test_on_a_real_abdomen_the_table_is_out_and_the_lungs_are_in(shared_data):
    ct = Volume.read(shared_data / "unlabelled" / "crlm_ct_1006_ct.nii.gz")
    found = body_of(ct)
    assert 0.3 < found.mean() < 0.5
    assert not found[:, 440:].any()  # the table, 40 rows and more below the back
    lungs = (ct.array > -900) & (ct.array < -700)
    lungs[:, :, :100] = lungs[:, :, 420:] = lungs[:, :110] = lungs[:, 385:] = False
    assert found[39:][lungs[39:]].mean() > 0.99
    assert found[:, 130:380, 110:410][ct.array[:, 130:380, 110:410] > 60].mean() > 0.999


@pytest.mark.real_data
def test_on_a_real_head_the_drawn_structures_lie_in_the_body(shared_data):
    ct, drawn = (Volume.read(shared_data / "okbp" / f"okbp_004_{kind}.nii.gz") for kind in ("ct", "seg"))
    found = body_of(ct)
    assert found[drawn.array > 0].mean() > 0.999
    assert 0.2 < found.mean() < 0.35
