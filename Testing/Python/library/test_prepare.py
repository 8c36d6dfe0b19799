"""What the network sees: array by array what nnU-Net's own loader makes of one channel, several, and a cascade's first stage."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.inference.data_iterators import PreprocessAdapterFromNpy
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny_model import plans, rotation, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.inference.prepare import _preprocessor_of, check_same_grid, prepare_case
from CalibUncertaintyLib.model.folder import ModelFolder
from CalibUncertaintyLib.volume import Volume

REGIONS = {"background": 0, "Whole": [1, 2], "Node": 2}
TWO = {"0": "CT", "1": "PET"}


def ours(folder, paths, previous=None):
    model = ModelFolder.open(folder)
    manager = PlansManager(model.plans)
    configuration = manager.get_configuration(model.configuration)
    return prepare_case(model, manager, configuration, [Volume.read(path) for path in paths], previous)


def stock(folder, paths, previous=None):
    """Data and properties from nnU-Net's reader, preprocessor and loader."""
    model = ModelFolder.open(folder)
    manager = PlansManager(model.plans)
    configuration = manager.get_configuration(model.configuration)
    reader = manager.image_reader_writer_class()
    array, properties = reader.read_images([str(path) for path in paths])
    before = [reader.read_seg(str(previous))[0]] if previous is not None else None
    loader = PreprocessAdapterFromNpy([array], before, [properties], [None], manager, model.dataset, configuration)
    item = next(loader)
    return item["data"], item["data_properties"]


def write_labels(path, ct, values=(0, 1, 2), seed=5):
    """Blocks of labels on the grid of a CT."""
    image = sitk.ReadImage(str(ct))
    generator = np.random.default_rng(seed)
    shape = image.GetSize()[::-1]
    coarse = generator.choice(values, size=[(n + 3) // 4 for n in shape])
    blocks = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)[tuple(slice(0, n) for n in shape)]
    labels = sitk.GetImageFromArray(np.ascontiguousarray(blocks.astype(np.uint8)))
    labels.CopyInformation(image)
    sitk.WriteImage(labels, str(path))
    return path


def assert_same(case, data, properties):
    assert case.data.dtype == data.dtype
    assert case.data.shape == data.shape
    assert np.array_equal(case.data.numpy(), data.numpy())
    assert case.full_shape == tuple(properties["shape_before_cropping"])
    assert case.crop_start == tuple(begin for begin, _ in properties["bbox_used_for_cropping"])
    assert case.grid.ct_shape == tuple(properties["shape_after_cropping_and_before_resampling"])


@pytest.mark.parametrize(
    ("transpose", "reader"),
    [((0, 1, 2), "SimpleITKIO"), ((1, 0, 2), "NibabelIOWithReorient"), ((2, 0, 1), "SimpleITKIOWithReorient")],
)
def test_several_channels_are_prepared_as_nnunet_prepares_them(tmp_path, transpose, reader):
    content = plans(channels=2, transpose=transpose, reader=reader)
    folder = write_model(tmp_path, content, folds=(0,), channels=TWO)
    where = {"direction": rotation(15) @ np.diag([-1, 1, 1]), "empty_border": 3}
    paths = [write_ct(tmp_path / f"{i}.nii.gz", seed=i, **where) for i in (0, 1)]
    case = ours(folder, paths)
    assert_same(case, *stock(folder, paths))
    assert case.data.shape[0] == 2
    assert not np.allclose(case.data[0], case.data[1])


def test_the_crop_is_that_of_all_channels_together(tmp_path):
    """Where one image is empty another may not be: nnU-Net crops to what is not zero in any."""
    folder = write_model(tmp_path, plans(channels=2), folds=(0,), channels=TWO)
    paths = [write_ct(tmp_path / "0.nii.gz", empty_border=4), write_ct(tmp_path / "1.nii.gz", seed=1, empty_border=2)]
    case = ours(folder, paths)
    assert_same(case, *stock(folder, paths))
    assert case.crop_start == (2, 2, 3)


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 2.0), (0.8, 0.8, 7.0)], ids=["cubes", "thick slices"])
@pytest.mark.parametrize("border", [0, 3])
def test_a_cascade_sees_its_first_stage_as_nnunet_shows_it(tmp_path, spacing, border):
    content = plans(lowres=(4.0, 3.0, 3.0), transpose=(1, 0, 2), reader="NibabelIOWithReorient")
    folder = write_model(tmp_path, content, folds=(0,), configuration="3d_cascade_fullres")
    where = {"spacing": spacing, "direction": rotation(10), "empty_border": border}
    ct = write_ct(tmp_path / "ct.nii.gz", **where)
    before = write_labels(tmp_path / "before.nii.gz", ct)
    case = ours(folder, [ct], Volume.read(before, check=False).array)
    assert_same(case, *stock(folder, [ct], before))
    assert case.data.shape[0] == 3
    assert all(set(np.unique(channel)) == {0, 1} for channel in case.data[1:].numpy())


@pytest.mark.parametrize(
    ("labels", "order", "channels"),
    [(REGIONS, (1, 2), 2), ({"background": 0, "Liver": 1, "Node": 2, "ignore": 3}, None, 2)],
    ids=["regions", "ignore label"],
)
def test_a_cascade_gets_one_channel_for_each_label_not_for_each_head(tmp_path, labels, order, channels):
    content = plans(lowres=(4.0, 3.0, 3.0))
    folder = write_model(
        tmp_path, content, folds=(0,), configuration="3d_cascade_fullres", labels=labels, regions_class_order=order
    )
    ct = write_ct(tmp_path / "ct.nii.gz")
    before = write_labels(tmp_path / "before.nii.gz", ct)
    case = ours(folder, [ct], Volume.read(before, check=False).array)
    assert_same(case, *stock(folder, [ct], before))
    assert case.data.shape[0] == 1 + channels


def test_a_first_stage_that_found_nothing_gives_empty_channels(tmp_path):
    folder = write_model(tmp_path, plans(lowres=(4.0, 3.0, 3.0)), folds=(0,), configuration="3d_cascade_fullres")
    ct = write_ct(tmp_path / "ct.nii.gz")
    before = write_labels(tmp_path / "before.nii.gz", ct, values=(0,))
    case = ours(folder, [ct], Volume.read(before, check=False).array)
    assert_same(case, *stock(folder, [ct], before))
    assert not case.data[1:].any()


def test_the_given_arrays_are_left_as_they_are(tmp_path):
    folder = write_model(tmp_path, plans(lowres=(4.0, 3.0, 3.0)), folds=(0,), configuration="3d_cascade_fullres")
    ct = write_ct(tmp_path / "ct.nii.gz", empty_border=3)
    before = Volume.read(write_labels(tmp_path / "before.nii.gz", ct), check=False).array.astype(np.float32)
    kept = before.copy()
    ours(folder, [ct], before)
    assert np.array_equal(before, kept)


@pytest.mark.parametrize("number", [1, 3])
def test_the_wrong_number_of_images_is_refused(tmp_path, number):
    folder = write_model(tmp_path, plans(channels=2), folds=(0,), channels=TWO)
    with pytest.raises(CalibUncertaintyError, match=rf"wants 2 inputs \(CT, PET\), got {number}"):
        ours(folder, [write_ct(tmp_path / "ct.nii.gz")] * number)


def test_a_cascade_without_its_first_stage_is_refused_and_so_is_a_stage_that_nobody_asked_for(tmp_path):
    content = plans(lowres=(4.0, 3.0, 3.0))
    folder = write_model(tmp_path, content, folds=(0,), configuration="3d_cascade_fullres")
    ct = write_ct(tmp_path / "ct.nii.gz")
    with pytest.raises(CalibUncertaintyError, match="needs what its stage 3d_lowres predicts"):
        ours(folder, [ct])
    with pytest.raises(CalibUncertaintyError, match="has 3 x 3 x 3 voxels, the CT 28 x 30 x 24"):
        ours(folder, [ct], np.zeros((3, 3, 3)))
    plain = write_model(tmp_path / "plain", plans(), folds=(0,))
    with pytest.raises(CalibUncertaintyError, match="is no second stage"):
        ours(plain, [ct], np.zeros((24, 30, 28)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preprocessor_name": "MyPreprocessor"}, "asks for preprocessing that this nnU-Net does not have"),
        ({"normalization_schemes": ["MyNormalization"]}, "asks for preprocessing that .* does not have .*MyNormalization"),
        ({"resampling_fn_seg": "my_resampling"}, "asks for preprocessing that this nnU-Net does not have .*my_resampling"),
    ],
)
def test_preprocessing_from_somebodys_own_package_is_refused_by_name(tmp_path, change, said):
    folder = write_model(tmp_path, plans(), folds=(0,))
    content = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
    content["configurations"]["3d_fullres"].update(change)
    (folder / "plans.json").write_text(json.dumps(content))
    with pytest.raises(CalibUncertaintyError, match=said) as refusal:
        ours(folder, [write_ct(tmp_path / "ct.nii.gz")])
    assert str(folder / "plans.json") in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preprocessor_name": "PlansManager"}, "PlansManager is no preprocessor"),
        ({"preprocessor_name": "maybe_convert_to_dataset_name"}, "maybe_convert_to_dataset_name is no preprocessor"),
        ({"preprocessor_name": 5}, "does not have"),
        ({"resampling_fn_data": "SimpleITKIO"}, "SimpleITKIO is no resampling"),
        ({"resampling_fn_seg": "recursive_find_python_class"}, "recursive_find_python_class is no resampling"),
        ({"resampling_fn_probabilities": "map_coordinates"}, "map_coordinates is no resampling"),
        ({"resampling_fn_probabilities": "OrderedDict"}, "OrderedDict is no resampling"),
        ({"normalization_schemes": ["ABC"]}, "ABC is no normalisation"),
        ({"normalization_schemes": ["abstractmethod"]}, "abstractmethod is no normalisation"),
    ],
)
def test_what_nnunets_modules_hold_besides_preprocessing_is_never_called(tmp_path, change, said):
    """nnU-Net takes any attribute of its modules under these names."""
    folder = write_model(tmp_path, plans(), folds=(0,))
    content = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
    content["configurations"]["3d_fullres"].update(change)
    (folder / "plans.json").write_text(json.dumps(content))
    with pytest.raises(CalibUncertaintyError, match=said) as refusal:
        ours(folder, [write_ct(tmp_path / "ct.nii.gz")])
    assert str(folder / "plans.json") in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["resample_torch_fornnunet", "no_resampling_hack", "resample_torch_simple"])
def test_every_resampling_of_nnunet_is_let_through(tmp_path, name):
    folder = write_model(tmp_path, plans(), folds=(0,))
    content = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
    for use in ("data", "seg", "probabilities"):
        of_use = {f"resampling_fn_{use}": name, f"resampling_fn_{use}_kwargs": {"is_seg": use == "seg"}}
        content["configurations"]["3d_fullres"].update(of_use)
    (folder / "plans.json").write_text(json.dumps(content))
    model = ModelFolder.open(folder)
    assert _preprocessor_of(model, PlansManager(model.plans).get_configuration(model.configuration))


def moved(volume, **change):
    return replace(volume, **change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: moved(v, array=v.array[1:]), "28 x 30 x 23 voxels, not 28 x 30 x 24"),
        (lambda v: moved(v, spacing_zyx=(2.5, 1.5, 1.5)), "spacing 1.5, 1.5, 2.5 mm, not 1.5, 1.5, 2 mm"),
        (lambda v: moved(v, origin_lps=(-31.5, 12.25, 101.0)), "origin -31.5, 12.25, 101 mm, not -31.5, 12.25, 100 mm"),
        (lambda v: moved(v, direction_lps=rotation(2)), "other directions of its axes"),
        (lambda v: moved(v, direction_lps=np.diag([-1.0, 1, 1])), "other directions of its axes"),
    ],
)
def test_images_on_other_grids_are_refused_with_what_differs(tmp_path, change, said):
    volume = Volume.read(write_ct(tmp_path / "ct.nii.gz"))
    with pytest.raises(CalibUncertaintyError) as refusal:
        check_same_grid([volume, volume, change(volume)], ["a", "b", "input 2 (PET)"])
    assert said in str(refusal.value)
    assert str(refusal.value).startswith("input 2 (PET) does not lie on the grid of a: ")
    assert "\n" not in str(refusal.value)


def test_rounding_in_a_header_is_no_other_grid(tmp_path):
    volume = Volume.read(write_ct(tmp_path / "ct.nii.gz", direction=rotation(20)))
    rounded = replace(
        volume,
        spacing_zyx=tuple(s * (1 + 1e-6) for s in volume.spacing_zyx),
        origin_lps=tuple(float(np.float32(o)) + 1e-4 for o in volume.origin_lps),
        direction_lps=volume.direction_lps.astype(np.float32),
    )
    assert check_same_grid([volume, rounded], ["a", "b"]) is None
    farther = replace(rounded, origin_lps=tuple(o + 0.5 for o in rounded.origin_lps))
    with pytest.raises(CalibUncertaintyError, match="origin"):
        check_same_grid([volume, farther], ["a", "b"])
