"""Input images: as many as the model wants, in its order, on one grid; what is missing or too much is said in one line."""

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.model.folder import ModelFolder
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.inputs import check_channels, read_channels

TWO = {"0": "CT", "1": "PET"}


@pytest.fixture
def single(tmp_path):
    return ModelFolder.open(write_model(tmp_path / "single", plans(), folds=(0,)))


@pytest.fixture
def double(tmp_path):
    return ModelFolder.open(write_model(tmp_path / "double", plans(channels=2), folds=(0,), channels=TWO))


@pytest.fixture
def images(tmp_path):
    return [write_ct(tmp_path / f"case_{i:04d}.nii.gz", seed=i) for i in range(3)]


def refusal(*arguments, **more):
    with pytest.raises(CalibUncertaintyError) as caught:
        read_channels(*arguments, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_image_is_read_as_before(single, images):
    volumes, description = read_channels(images[0], single)
    assert (len(volumes), description) == (1, str(images[0]))
    assert np.array_equal(volumes[0].array, Volume.read(images[0]).array)
    assert read_channels([str(images[0])], single)[1] == str(images[0])


def test_several_images_come_in_the_order_given(double, images):
    volumes, description = read_channels([images[1], str(images[0])][::-1], double)
    for volume, path in zip(volumes, images, strict=False):
        assert np.array_equal(volume.array, Volume.read(path).array)
    assert description == f"{images[0]} (CT), {images[1]} (PET)"


def test_the_first_of_numbered_files_is_enough_and_it_is_said(double, images):
    volumes, description = read_channels(images[0], double)
    assert np.array_equal(volumes[1].array, Volume.read(images[1]).array)
    assert description.endswith("this was found beside the first: case_0001.nii.gz")


def test_a_model_of_one_channel_takes_a_numbered_file_alone(single, images):
    assert len(read_channels(images[0], single)[0]) == 1


def test_a_missing_sibling_is_named(double, images):
    images[1].unlink()
    assert f"{images[1]} does not exist" in refusal(images[0], double)


def test_volumes_in_memory_are_taken(double, images):
    given = [Volume.read(path) for path in images[:2]]
    volumes, description = read_channels(given, double)
    assert volumes == given
    assert description == "the given volume (CT), given volume 2 (PET)"


@pytest.mark.parametrize("which", [[], [1], [0, 1, 2]])
def test_another_number_of_images_is_refused_with_what_is_wanted(double, images, which):
    said = refusal([images[i] for i in which], double)
    assert "wants 2 images (CT, PET)" in said
    assert ("none was", "1 was", "", "3 were")[len(which)] in said
    assert "case_0000.nii.gz" in said


def test_too_many_images_for_a_model_of_one_are_refused(single, images):
    assert "wants a single image (CT) and 2 were given" in refusal(images[:2], single)


def test_numbered_files_in_another_order_are_refused(double, images):
    said = refusal([images[1], images[0]], double)
    assert "numbered 0001, 0000, but the model wants 0000 (CT), 0001 (PET)" in said
    assert "numbered 0000, 0002" in refusal([images[0], images[2]], double)


def test_an_image_on_another_grid_is_refused_by_its_path(double, images, tmp_path):
    image = sitk.ReadImage(str(images[1]))
    image.SetOrigin((0.0, 0.0, 0.0))
    other = tmp_path / "pet.nii.gz"
    sitk.WriteImage(image, str(other))
    said = refusal([images[0], other], double)
    assert said.startswith(f"{other} (PET) does not lie on the grid of {images[0]} (CT): origin 0, 0, 0 mm")


def test_a_broken_or_missing_image_is_named_whichever_it_is(double, images, tmp_path):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"")
    assert f"{broken} is an empty file" in refusal([images[0], broken], double)
    assert "no.nii.gz does not exist" in refusal([images[0], tmp_path / "no.nii.gz"], double)
    holey = Volume.read(images[1])
    holey = holey.with_array(np.where(holey.array > 0, np.nan, holey.array))
    assert "given volume 2 holds" in refusal([Volume.read(images[0]), holey], double)


def test_one_series_cannot_be_meant_for_two_folders(double, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    assert "2 DICOM folders were given" in refusal(folders, double, series="1.2.3")


def test_only_channels_called_ct_must_hold_hounsfield_units(double, single, images):
    ct = Volume.read(images[0])
    pet = ct.with_array((ct.array > 0).astype(np.float32))
    assert check_channels([ct, pet], double, "x") == []
    with pytest.raises(CalibUncertaintyError, match=r"input 0 \(CT\) has values between 0 and 1"):
        check_channels([pet, ct], double, "x")
    with pytest.raises(CalibUncertaintyError, match="the file has values between 0 and 1"):
        check_channels([pet], single, "the file")
