"""Dropout put into real networks of nnU-Net: where Rousseau has it, active when it should be, and invisible to checkpoints."""

import copy
import shutil
import subprocess
import sys

import numpy as np
import pytest

from CalibUncertaintyLib import trainers
from CalibUncertaintyLib.errors import CalibUncertaintyError
from CalibUncertaintyLib.model.dropout import add_dropout, dropout_layers, dropout_settings

STAGES = 4
UNET = "dynamic_network_architectures.architectures.unet."
KINDS = [("PlainConvUNet", 3), ("PlainConvUNet", 2), ("ResidualEncoderUNet", 3)]


def network(kind="PlainConvUNet", dims=3, dropout=None, deep_supervision=False):
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    torch.manual_seed(0)
    blocks = "n_blocks_per_stage" if kind.startswith("Residual") else "n_conv_per_stage"
    settings = {
        "n_stages": STAGES, "features_per_stage": [4, 4, 6, 8], "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "kernel_sizes": [[3] * dims] * STAGES, "strides": [[1] * dims] + [[2] * dims] * (STAGES - 1), blocks: [1] * STAGES,
        "n_conv_per_stage_decoder": [1] * (STAGES - 1), "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": f"torch.nn.Dropout{dims}d" if dropout is not None else None,
        "dropout_op_kwargs": {"p": dropout} if dropout is not None else None,
        "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    imports = ["conv_op", "norm_op", "dropout_op", "nonlin"]
    return get_network_from_plans(UNET + kind, settings, imports, 1, 3, True, deep_supervision)


def image(dims=3):
    import torch

    return torch.from_numpy(np.random.default_rng(0).normal(0, 1, (1, 1, *[32 if dims == 3 else 64] * dims)).astype(np.float32))


def activated(net):
    """As at inference with Monte Carlo dropout: only the dropout layers are in training mode."""
    net.eval()
    for layer in dropout_layers(net):
        layer.train()
    return net


@pytest.mark.parametrize("where", ["decoder", "center"])
@pytest.mark.parametrize(("kind", "dims"), KINDS)
def test_a_network_with_dropout_is_the_plain_one_until_it_is_active(kind, dims, where):
    import torch

    plain, net = network(kind, dims).eval(), network(kind, dims)
    layers = add_dropout(net, where, 0.5)
    assert dropout_layers(net) == sorted(layers, key=list(net.modules()).index)
    assert len(layers) == {"decoder": STAGES - 1 + 1, "center": 2 + 2}[where]
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    net.load_state_dict(plain.state_dict())
    x = image(dims)
    with torch.no_grad():
        np.testing.assert_array_equal(net.eval()(x), plain(x))
        first, second = activated(net)(x), net(x)
        assert (first != second).float().mean() > 0.5
        torch.manual_seed(3)
        once = net(x)
        torch.manual_seed(3)
        np.testing.assert_array_equal(net(x), once)
        np.testing.assert_array_equal(net.eval()(x), plain(x))
    plain.load_state_dict(net.state_dict())


def dropped_shares(net, blocks):
    """Share of exact zeros in what each named block receives ("in") or gives ("out"), with dropout active."""
    import torch

    seen, hooks = {}, []
    for name, (block, side) in blocks.items():
        def look(_block, given, out=None, name=name):
            seen[name] = float(((out if out is not None else given[0]) == 0).float().mean())

        hooks.append(block.register_forward_pre_hook(look) if side == "in" else block.register_forward_hook(look))
    with torch.no_grad():
        activated(net)(image())
    for hook in hooks:
        hook.remove()
    return seen


def parts(net):
    """Everything dropout could sit at, under a name: encoder stages give, decoder stages and the output layer receive."""
    found = {f"encoder {i}": (stage, "out") for i, stage in enumerate(net.encoder.stages)}
    found |= {f"decoder {i}": (stage.convs[0], "in") for i, stage in enumerate(net.decoder.stages)}
    return found | {"output": (net.decoder.seg_layers[-1], "in")}


def test_decoder_dropout_sits_before_every_decoder_block_and_the_output():
    net = network()
    add_dropout(net, "decoder", 0.25)
    shares = dropped_shares(net, parts(net))
    wanted = {"decoder 0", "decoder 1", "decoder 2", "output"}
    assert {name for name, share in shares.items() if share > 0.01} == wanted
    assert [shares[name] for name in sorted(wanted)] == pytest.approx([0.25] * 4, abs=0.06)


def test_center_dropout_sits_around_the_bottom():
    net = network()
    add_dropout(net, "center", 0.5)
    shares = dropped_shares(net, parts(net))
    wanted = {"encoder 2", "encoder 3", "decoder 0", "decoder 1"}
    assert {name for name, share in shares.items() if share > 0.01} == wanted
    assert [shares[f"encoder {i}"] for i in (2, 3)] == pytest.approx([0.5] * 2, abs=0.08)
    # the skip of encoder 2 is dropped twice, as it is given and as decoder 0 receives it: 3/4 of it and 1/2 of the rest
    assert [shares["decoder 0"], shares["decoder 1"]] == pytest.approx([0.625, 0.5], abs=0.05)


def test_a_copy_has_its_own_dropout():
    import torch

    net = network()
    add_dropout(net, "decoder", 0.5)
    twin = copy.deepcopy(net.eval())
    activated(twin)
    assert not any(layer.training for layer in dropout_layers(net))
    x = image()
    with torch.no_grad():
        assert (net(x) == net(x)).all()
        assert (twin(x) != net(x)).any()


def test_torch_compile_sees_the_dropout():
    import torch

    net = network()
    add_dropout(net, "center", 0.5)
    compiled = torch.compile(net.eval(), backend="eager", fullgraph=True)
    x = image()
    with torch.no_grad():
        np.testing.assert_array_equal(compiled(x), net(x))
        activated(net)
        assert (compiled(x) != compiled(x)).any()


def test_dropout_of_the_plans_is_found_unless_it_drops_nothing():
    assert len(dropout_layers(network(dropout=0.2))) == STAGES + STAGES - 1
    assert dropout_layers(network(dropout=0.0)) == []
    assert dropout_layers(network()) == []


def test_dropout_trains_through_deep_supervision():
    net = network(deep_supervision=True)
    add_dropout(net, "decoder", 0.5)
    outputs = net.train()(image())
    assert len(outputs) == STAGES - 1
    sum(output.square().mean() for output in outputs).backward()
    assert all(weight.grad is not None for weight in net.parameters())


def test_the_settings_are_those_of_the_trainer_classes():
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = str(trainers.FOLDER)
    for name, where in (("nnUNetTrainerDropout", "decoder"), ("nnUNetTrainerDropoutCenter", "center")):
        found = recursive_find_python_class(folder, name, None, folder, cleanup_imports_from_base_folder=True)
        assert dropout_settings(name) == (found.dropout_where, found.dropout_rate) == (where, 0.5)
    assert dropout_settings("nnUNetTrainer") is None


UNINSTALLED = """
import sys
from pathlib import Path
repository, folder = sys.argv[1:]
sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(repository)]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
try:
    import CalibUncertaintyLib
except ModuleNotFoundError:
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class as find
    try:
        print(find(folder, "nnUNetTrainerDropout", None, folder, cleanup_imports_from_base_folder=True).dropout_where)
    except ImportError as error:
        print(error)
"""


@pytest.mark.parametrize("alone", [False, True], ids=["in a checkout", "copied away"])
def test_the_trainer_works_from_a_checkout_without_an_install(repository, tmp_path, alone):
    folder = shutil.copytree(trainers.FOLDER, tmp_path / "trainers") if alone else trainers.FOLDER
    run = subprocess.run(
        [sys.executable, "-c", UNINSTALLED, str(repository), str(folder)],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    if alone:
        assert "needs the library it came with" in run.stdout
    else:
        assert run.stdout == "decoder\n"


@pytest.mark.parametrize(
    ("where", "rate", "message"),
    [
        ("encoder", 0.5, "decoder or center, not at 'encoder'"),
        ("decoder", 0.0, "between 0 and 1"),
        ("decoder", 1.0, "between 0 and 1"),
        ("center", float("nan"), "between 0 and 1"),
    ],
)
def test_a_place_or_rate_that_cannot_be_is_refused(where, rate, message):
    with pytest.raises(CalibUncertaintyError, match=message):
        add_dropout(network(), where, rate)


def test_a_network_that_is_no_unet_is_refused_by_name_and_twice_is_once_too_often():
    import torch

    with pytest.raises(CalibUncertaintyError, match="cannot be put into a Linear"):
        add_dropout(torch.nn.Linear(2, 2), "decoder", 0.5)
    net = network()
    add_dropout(net, "decoder", 0.5)
    with pytest.raises(CalibUncertaintyError, match="already"):
        add_dropout(net, "center", 0.5)


def test_the_line_of_the_documentation_prints_the_folder_and_imports_nothing_heavy():
    line = "import CalibUncertaintyLib.trainers as t; print(t.FOLDER)"
    code = line + "; import sys; print({'torch', 'nnunetv2'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.splitlines() == [str(trainers.FOLDER), "set()"]
    assert line in trainers.__doc__
    assert (trainers.FOLDER / "nnUNetTrainerDropout.py").is_file()
