"""Only nnU-Net's own network parts are built from plans that may come from a stranger."""

import json
import sys

import pytest
import torch
from network_of import answer, opened
from tiny_model import plans, write_model

from CalibUncertaintyLib import CalibUncertaintyError


def with_architecture(folder, class_name=None, listed=(), **arguments):
    """Change the architecture in the folder's plans. listed: more keys that nnU-Net shall import."""
    content = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
    architecture = content["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = class_name or architecture["network_class_name"]
    architecture["arch_kwargs"].update(arguments)
    architecture["_kw_requires_import"] += listed
    (folder / "plans.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("residual", [False, True])
def test_an_old_plan_of_either_architecture_names_only_network_parts(tmp_path, residual):
    content = plans(residual=residual)
    configuration = content["configurations"]["3d_fullres"]
    folder = write_model(tmp_path, content, folds=(0,))
    expected = answer(*opened(folder))
    arguments = configuration.pop("architecture")["arch_kwargs"]
    configuration.update(
        UNet_class_name="ResidualEncoderUNet" if residual else "PlainConvUNet", UNet_base_num_features=4, unet_max_num_features=8,
        num_pool_per_axis=[1, 1, 1], n_conv_per_stage_encoder=[1, 1], n_conv_per_stage_decoder=[1],
        pool_op_kernel_sizes=arguments["strides"], conv_kernel_sizes=arguments["kernel_sizes"],
    )  # fmt: skip
    (folder / "plans.json").write_text(json.dumps(content))
    assert torch.equal(answer(*opened(folder)), expected)


def test_every_part_that_residual_encoders_name_is_let_through(tmp_path):
    content = plans(residual=True)
    architecture = content["configurations"]["3d_fullres"]["architecture"]
    architecture["_kw_requires_import"].append("block")
    architecture["arch_kwargs"].update(
        conv_op="torch.nn.modules.conv.Conv3d", norm_op="torch.nn.InstanceNorm3d", nonlin="torch.nn.modules.activation.LeakyReLU",
        dropout_op="torch.nn.modules.dropout.Dropout3d", dropout_op_kwargs={"p": 0.0},
        block="dynamic_network_architectures.building_blocks.residual.BasicBlockD",
    )  # fmt: skip
    network, channels, dims = opened(write_model(tmp_path, content, folds=(0,)))
    assert torch.isfinite(answer(network, channels, dims)).all()


@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "nnUNetTrainerBN", "nnUNetTrainerDropout", "nnUNetTrainerUnknown"])
@pytest.mark.parametrize("key", ["nonlin", "norm_op", "conv_op", "dropout_op", "more"])
def test_a_strangers_plans_run_no_code(tmp_path, key, trainer):
    folder = write_model(tmp_path, plans(), folds=(0,), trainer=trainer)
    arguments = {key: "os.system", f"{key}_kwargs": {"command": f"echo PWNED > {tmp_path / 'ran'}"}}
    with_architecture(folder, None, [key], **arguments)
    with pytest.raises(CalibUncertaintyError) as refusal:
        opened(folder)
    assert not (tmp_path / "ran").exists()
    assert str(refusal.value) == (
        f"{folder / 'plans.json'} names os.system, which is none of nnU-Net's network parts; if you trust where the model comes"
        " from, run again with --trust-checkpoint"
    )


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "torch.nn.modules.module.torch.os.system",
        "torch.nn.modules.module.torch.fx.GraphModule",
        "torch.nn.functional.relu",
        "torch.nn.",
        "torch.nn./../../evil",
        "torch.hub.load",
        "nnunetv2.utilities.find_class_by_name.os.system",
        "nnunetv2.inference.predict_from_raw_data.nnUNetPredictor",
        "",
        5,
        ["os.system"],
        {"os": "system"},
        "os\n.system",
    ],
)
def test_only_names_of_network_classes_are_network_parts(tmp_path, name):
    folder = with_architecture(write_model(tmp_path, plans(), folds=(0,)), nonlin=name)
    with pytest.raises(CalibUncertaintyError, match=r"none of nnU-Net's network parts; .*--trust-checkpoint") as refusal:
        opened(folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "nnUNetTrainerBN"])
@pytest.mark.parametrize("where", ["class_name", "nonlin", "conv_op", "not listed"])
def test_a_module_that_a_strangers_plans_name_is_not_even_imported(tmp_path, monkeypatch, where, trainer):
    (tmp_path / "lurking_module.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    folder = write_model(tmp_path, plans(), folds=(0,), trainer=trainer)
    with_architecture(folder, **{"conv_op" if where == "not listed" else where: "lurking_module.Thing"})
    if where == "not listed":
        content = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
        content["configurations"]["3d_fullres"]["architecture"]["_kw_requires_import"].remove("conv_op")
        (folder / "plans.json").write_text(json.dumps(content))
    with pytest.raises(CalibUncertaintyError, match=r"names lurking_module\.Thing, which is none of"):
        opened(folder)
    assert not (tmp_path / "ran").exists()
    assert "lurking_module" not in sys.modules


def test_an_architecture_without_a_name_hides_no_strange_part(tmp_path):
    folder = with_architecture(write_model(tmp_path, plans(), folds=(0,), trainer="nnUNetTrainerBN"), conv_op="os.system")
    content = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
    content["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = None
    (folder / "plans.json").write_text(json.dumps(content))
    with pytest.raises(CalibUncertaintyError, match="names None, which is none of"):
        opened(folder)


@pytest.mark.parametrize("word", ["trusted", "--trainers"])
def test_with_the_users_word_a_network_of_any_package_is_built(tmp_path, monkeypatch, word):
    (tmp_path / "my_layers.py").write_text("import torch\nclass Leaky(torch.nn.LeakyReLU):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    folder = write_model(tmp_path, plans(), folds=(0,), trainer="nnUNetTrainerLong")
    expected = answer(*opened(folder))
    with_architecture(folder, nonlin="my_layers.Leaky")
    with pytest.raises(CalibUncertaintyError, match=r"names my_layers\.Leaky, which"):
        opened(folder)
    trainers = tmp_path / "trainers"
    trainers.mkdir()
    with pytest.raises(CalibUncertaintyError, match=r"names my_layers\.Leaky, which"):  # a folder without the trainer says nothing
        opened(folder, trainers)
    (trainers / "long.py").write_text("class nnUNetTrainerLong(nnUNetTrainer):\n    epochs = 5\n")
    found = opened(folder, trusted=True) if word == "trusted" else opened(folder, trainers)
    assert any(type(layer).__name__ == "Leaky" for layer in found[0].modules())
    assert torch.equal(answer(*found), expected)
    sys.modules.pop("my_layers")


@pytest.mark.parametrize("name", ["torch.nn.NoSuchLayer", "torch.nn.modules.no_such.Layer"])
def test_a_part_that_is_not_there_is_refused_by_name(tmp_path, name):
    """nnU-Net would leave the activation out and build a network that answers wrongly."""
    folder = with_architecture(write_model(tmp_path, plans(), folds=(0,)), nonlin=name)
    with pytest.raises(CalibUncertaintyError, match=rf"cannot be built \(its nonlin, {name}, is not there"):
        opened(folder)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_package.MyUNet", "no such class in this Python"),
        ("subprocess.Popen", "no network of PyTorch"),
        ("os.system", "no network of PyTorch"),
    ],
)
def test_an_architecture_that_is_not_there_or_no_network_is_refused_by_name(tmp_path, name, said):
    folder = with_architecture(write_model(tmp_path, plans(), folds=(0,)), name)
    with pytest.raises(CalibUncertaintyError) as refusal:
        opened(folder)
    assert f"{folder / 'plans.json'} names {name}, which is none of nnU-Net's network parts" in str(refusal.value)
    with pytest.raises(CalibUncertaintyError, match=said) as refusal:
        opened(folder, trusted=True)
    assert f"{folder / 'plans.json'}: the network {name} cannot be built" in str(refusal.value)
    assert "\n" not in str(refusal.value)
