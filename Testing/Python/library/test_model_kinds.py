"""Which kinds of model are let through, what is told of them, and what is refused by name: channels, regions, cascades."""

import json
import shutil

import pytest
from tiny_model import plans, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.model.folder import ModelFolder

LOWRES = (4.0, 3.0, 3.0)
REGIONS = {"background": 0, "Whole": [1, 2], "Node": 2}


def edit(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content))


def refused(call, *arguments):
    with pytest.raises(CalibUncertaintyError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def cascade(tmp_path):
    content = plans(lowres=LOWRES)
    low = write_model(tmp_path, content, configuration="3d_lowres")
    return low, write_model(tmp_path, content, configuration="3d_cascade_fullres", seed=5)


def test_several_channels_are_let_through_and_told(tmp_path):
    model = ModelFolder.open(write_model(tmp_path, plans(channels=2), channels={"0": "CT", "1": "PET"}))
    model.refuse_unsupported()
    assert "Input: CT, PET (2 images, in this order)" in model.describe()


def test_regions_are_let_through_and_told(tmp_path):
    model = ModelFolder.open(write_model(tmp_path, plans(), labels=REGIONS, regions_class_order=(1, 2)))
    model.refuse_unsupported()
    assert (model.labels, model.heads.names, model.heads.channels) == ({1: "Whole", 2: "Node"}, ("Whole", "Node"), 2)
    assert "Regions that may overlap (2): Whole, Node" in model.describe()


def test_labels_of_regions_keep_the_order_of_the_channels(tmp_path):
    labels = {"background": 0, "Outer": [1, 2, 3], "Middle": [2, 3], "Core": 3}
    model = ModelFolder.open(write_model(tmp_path, plans(), labels=labels, regions_class_order=(7, 2, 5)))
    assert list(model.labels.items()) == [(7, "Outer"), (2, "Middle"), (5, "Core")]


@pytest.mark.parametrize("order", [None, [1], [1, 1], [0, 1], "12"])
def test_regions_without_a_usable_order_are_refused(tmp_path, order):
    folder = write_model(tmp_path, plans(), labels=REGIONS, regions_class_order=(1, 2))
    edit(folder / "dataset.json", lambda d: d.update(regions_class_order=order))
    model = ModelFolder.open(folder)
    said = refused(model.refuse_unsupported)
    assert str(folder / "dataset.json") in said
    assert "regions_class_order" in said
    assert any(said in line for line in model.describe())


def test_a_cascade_finds_its_first_stage_beside_it(cascade):
    low, high = cascade
    model = ModelFolder.open(high)
    model.refuse_unsupported()
    assert model.previous_stage == "3d_lowres"
    assert model.previous_model().path == low
    assert f"Second stage of a cascade; 3d_lowres is run first: {low}" in model.describe()
    first = ModelFolder.open(low)
    assert first.previous_stage is None
    assert "has no previous stage; leave --previous out" in refused(first.previous_model, high)


@pytest.mark.parametrize("renamed", [False, True])
def test_a_missing_first_stage_is_refused_with_what_to_do(cascade, tmp_path, renamed):
    low, high = cascade
    elsewhere = tmp_path / "elsewhere"
    shutil.move(low, elsewhere)
    if renamed:
        high = high.rename(high.with_name("mine__3d_cascade_fullres"))
    model = ModelFolder.open(high)
    said = refused(model.previous_model)
    assert ("its folder was renamed" if renamed else f"{low} does not exist") in said
    assert said.endswith("--previous DIR")
    assert any(said in line for line in model.describe())
    assert model.previous_model(elsewhere).path == elsewhere
    assert "Cannot be run" not in "\n".join(model.describe(previous=elsewhere))


def test_a_first_stage_of_another_kind_is_refused(cascade, tmp_path):
    low, high = cascade
    model = ModelFolder.open(high)
    assert "needs 3d_lowres as its previous stage" in refused(model.previous_model, high)
    edit(low / "dataset.json", lambda d: d.update(labels={"background": 0, "Liver": 1}))
    assert "their labels differ" in refused(model.previous_model)
    edit(low / "dataset.json", lambda d: d.update(labels=model.dataset["labels"], channel_names={"0": "MR"}))
    assert "their input channels differ (['MR'] and ['CT'])" in refused(model.previous_model)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("3d_gone", "there is no configuration '3d_gone' for 'previous_stage'"),
        (3, "there is no configuration 3 for 'previous_stage'"),
        ("3d_cascade_fullres", "go round in a circle (3d_cascade_fullres)"),
    ],
)
def test_a_damaged_chain_of_stages_is_refused(cascade, stage, said):
    high = cascade[1]
    edit(high / "plans.json", lambda p: p["configurations"]["3d_cascade_fullres"].update(previous_stage=stage))
    message = refused(ModelFolder.open(high).refuse_unsupported)
    assert message.startswith(f"{high / 'plans.json'}: ")
    assert said in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_reader_writer": "NaturalImage2DIO"}, "reads its images with NaturalImage2DIO"),
        ({"image_reader_writer": "Tiff3DIO"}, "reads its images with Tiff3DIO"),
        ({"label_manager": "MyLabelManager"}, "managed by MyLabelManager"),
        (
            {"foreground_intensity_properties_per_channel": {"0": plans()["foreground_intensity_properties_per_channel"]["0"]}},
            "says nothing of channel 1",
        ),
    ],
)
def test_what_plans_ask_for_and_is_not_supported_is_named(tmp_path, change, said):
    folder = write_model(tmp_path, plans(channels=2), channels={"0": "CT", "1": "PET"})
    edit(folder / "plans.json", lambda p: p.update(change))
    message = refused(ModelFolder.open(folder).refuse_unsupported)
    assert said in message
    assert str(folder / "plans.json") in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"normalization_schemes": ["CTNormalization"]}, "'normalization_schemes' has 1 entries for 2 input channels"),
        ({"use_mask_for_norm": [False]}, "'use_mask_for_norm' has 1 entries for 2 input channels"),
        ({"normalization_schemes": ["CTNormalization", "RGBTo01Normalization"]}, "channel 1 is a colour of photographs"),
    ],
)
def test_what_a_configuration_says_of_its_channels_must_fit(tmp_path, change, said):
    folder = write_model(tmp_path, plans(channels=2), channels={"0": "CT", "1": "PET"})
    edit(folder / "plans.json", lambda p: p["configurations"]["3d_fullres"].update(change))
    assert said in refused(ModelFolder.open(folder).refuse_unsupported)


def test_a_second_channel_needs_intensities_only_where_they_are_used(tmp_path):
    folder = write_model(tmp_path, plans(channels=2), channels={"0": "CT", "1": "PET"})
    edit(folder / "plans.json", lambda p: p["foreground_intensity_properties_per_channel"].update({"1": {}}))
    ModelFolder.open(folder).refuse_unsupported()
    both = ["CTNormalization", "CTNormalization"]
    edit(folder / "plans.json", lambda p: p["configurations"]["3d_fullres"].update(normalization_schemes=both))
    assert "has no number 'mean' for channel 1" in refused(ModelFolder.open(folder).refuse_unsupported)


def test_all_checkpoints_of_a_fold_are_listed_in_order(tmp_path):
    folder = write_model(tmp_path, plans(), folds=(0,))
    for name in ("checkpoint_cycle10.pth", "checkpoint_cycle2.pth", "checkpoint_best.pth", "notes.txt"):
        (folder / "fold_0" / name).touch()
    model = ModelFolder.open(folder)
    expected = ["checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_cycle2.pth", "checkpoint_cycle10.pth"]
    assert (model.checkpoints(0), model.checkpoints(7)) == (expected, [])
