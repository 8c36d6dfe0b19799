"""What a run will take, told beforehand: against nnU-Net's own shapes and tiles, and against networks measured in a process."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from tiny_model import plans

from CalibUncertaintyLib.inference import estimate as module
from CalibUncertaintyLib.inference.estimate import Part, count_tiles, estimate, grid_shape, size_in_words, time_in_words
from CalibUncertaintyLib.inference.network_cost import network_cost

UNET = "dynamic_network_architectures.architectures.unet."


def settings(features=(12, 24, 48, 64), patch=(48, 56, 56), kind="PlainConvUNet", target=(2.0, 2.0, 2.0)):
    """A configuration as nnU-Net writes it; residual ones with its numbers of blocks."""
    dims, count = len(patch), len(features)
    blocks = {"n_conv_per_stage": [2] * count} if kind == "PlainConvUNet" else {"n_blocks_per_stage": [1, 3, 4, 6, 6, 6][:count]}
    arguments = {
        "n_stages": count, "features_per_stage": list(features), "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "kernel_sizes": [[3] * dims] * count, "strides": [[1] * dims] + [[2] * dims] * (count - 1), **blocks,
        "n_conv_per_stage_decoder": [2 if kind == "PlainConvUNet" else 1] * (count - 1), "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    architecture = {
        "network_class_name": UNET + kind, "arch_kwargs": arguments,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }  # fmt: skip
    return {"patch_size": list(patch), "spacing": list(target[3 - dims :]), "architecture": architecture}


def part(shape=(100, 120, 120), spacing=(2.0, 2.0, 2.0), members=1, **options):
    keys = {key: options.pop(key) for key in ("channels", "passes", "checkpoint_bytes") if key in options}
    return Part(settings(**options), shape, spacing, members=members, **keys)


# --- shapes and tiles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_the_grid_and_its_tiles_are_those_of_nnunet(seed):
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

    generator = np.random.default_rng(seed)
    shape = tuple(int(n) for n in generator.integers(1, 300, 3))
    spacing, target = generator.uniform(0.5, 5, 3).tolist(), generator.uniform(0.5, 5, 3).tolist()
    patch = tuple(int(n) for n in generator.integers(8, 160, 3))
    step = float(generator.choice([0.25, 0.3, 0.5, 0.75, 1.0]))
    grid = grid_shape(target, shape, spacing)
    assert grid == tuple(compute_new_shape(shape, spacing, target))
    if min(grid) == 0:
        assert count_tiles(grid, patch, step) == 0
        return
    padded = tuple(max(n, tile) for n, tile in zip(grid, patch, strict=True))
    steps = compute_steps_for_sliding_window(padded, patch, step)
    assert count_tiles(grid, patch, step) == np.prod([len(of_axis) for of_axis in steps])
    in_plane = compute_steps_for_sliding_window(padded[1:], patch[1:], step)
    assert count_tiles(grid, patch[1:], step) == grid[0] * np.prod([len(of_axis) for of_axis in in_plane])


def test_a_2d_plan_keeps_the_first_axis_and_asks_every_plane():
    made = part((40, 100, 100), (5.0, 1.0, 1.0), patch=(64, 64), target=(0, 1.25, 1.25))
    assert made.grid == (40, 80, 80)
    assert made.tiles(0.5) == 40 * 2 * 2
    found = estimate([made], 3)
    assert (found.tiles, found.forwards) == (160, 160)
    assert found.ram_mb > module.BASE_MB


def test_a_case_smaller_than_the_patch_is_one_tile_and_of_one_slice_too():
    assert part((10, 10, 10)).tiles(0.5) == 1
    assert part((1, 200, 200)).tiles(0.5) > 1
    assert estimate([part((1, 30, 30), (2.0, 2.0, 2.0))], 2).tiles == 1


@pytest.mark.parametrize("shape", [(0, 20, 20), (1, 20, 20)])
def test_an_empty_grid_has_no_tiles_and_breaks_nothing(shape):
    made = Part(settings(target=(9.0, 1.0, 1.0)), shape, (1.0, 1.0, 1.0))
    assert made.grid[0] == 0
    found = estimate([made], 2)
    assert (found.tiles, found.scratch_mb) == (0, 0.0)
    assert found.seconds >= 0
    assert "0 tiles" in found.sentence()


def test_no_model_at_all_is_an_error():
    with pytest.raises(ValueError, match="at least one model"):
        estimate([], 2)


# --- networks --------------------------------------------------------------------------------------------------------------------

MEASURE = """
import json, sys, torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from CalibUncertaintyLib.progress import _mark_mb, _reset_mark
torch.set_num_threads(1)
for settings, heads in json.loads(sys.argv[1]):
    found = settings["architecture"]
    network = get_network_from_plans(found["network_class_name"], found["arch_kwargs"], found["_kw_requires_import"], 1, heads,
                                     allow_init=True, deep_supervision=False).eval()
    with torch.inference_mode():
        network(torch.zeros(1, 1, *[32 for _ in settings["patch_size"]]))
        _reset_mark()
        before = _mark_mb()
        network(torch.randn(1, 1, *settings["patch_size"]))
    print(json.dumps([_mark_mb() - before, sum(p.numel() for p in network.parameters())]))
"""
NETWORKS = {
    "plain": (settings(patch=(80, 96, 96)), 6),
    "residual": (settings((16, 32, 64, 128), (80, 80, 80), "ResidualEncoderUNet"), 3),
    "2d": (settings((32, 64, 128, 256), (512, 512)), 25),  # smaller ones drown in what the allocator keeps
}


def in_a_process(code, content, repository):
    """One line of JSON each, of a program that knows nothing of this one's memory."""
    run = subprocess.run(
        [sys.executable, "-c", code, json.dumps(content)], cwd=repository, capture_output=True, text=True, check=False, timeout=500
    )
    assert run.returncode == 0, run.stderr[-1500:]
    return [json.loads(line) for line in run.stdout.splitlines()[-len(content) :]]


@pytest.fixture(scope="module")
def measured(repository):
    return dict(zip(NETWORKS, in_a_process(MEASURE, list(NETWORKS.values()), repository), strict=True))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PEAK OF A FORWARD: only Linux lets its mark be set back")
@pytest.mark.parametrize("name", NETWORKS)
def test_weights_are_counted_exactly_and_a_forwards_memory_within_a_factor_of_two(name, measured):
    peak, weights = measured[name]
    cost = network_cost(NETWORKS[name][0], 1, NETWORKS[name][1])
    assert cost.weights == weights
    assert 0.5 < module._activations(cost, "stock") / 1e6 / peak < 2


def test_multiplications_are_those_of_the_network():
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from torch.utils.flop_counter import FlopCounterMode

    for kind in ("PlainConvUNet", "ResidualEncoderUNet"):
        described = settings((4, 8, 16), (16, 24, 16), kind)
        found = described["architecture"]
        network = get_network_from_plans(
            found["network_class_name"], dict(found["arch_kwargs"]), found["_kw_requires_import"], 2, 3, allow_init=True,
            deep_supervision=False,
        ).eval()  # fmt: skip
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 2, 16, 24, 16))
        cost = network_cost(described, 2, 3)
        assert 2 * cost.macs == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_plans_from_before_nnunet_2_3_are_read_in_todays_words():
    new = settings((32, 64, 128), (32, 32, 32))
    old = {
        "patch_size": [32, 32, 32], "spacing": [2.0, 2.0, 2.0], "UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 32,
        "unet_max_num_features": 320, "n_conv_per_stage_encoder": [2, 2, 2], "n_conv_per_stage_decoder": [2, 2],
        "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2], [2, 2, 2]], "conv_kernel_sizes": [[3, 3, 3]] * 3,
    }  # fmt: skip
    assert network_cost(old, 1, 4) == network_cost(new, 1, 4)


@pytest.mark.parametrize("change", ["other class", "no architecture", "no strides", "words"])
def test_a_network_that_is_not_known_leaves_its_part_open(change):
    described = settings()
    if change == "other class":
        described["architecture"]["network_class_name"] = UNET + "Transformer"
    elif change == "no architecture":
        del described["architecture"]
    elif change == "no strides":
        del described["architecture"]["arch_kwargs"]["strides"]
    else:
        described["architecture"]["arch_kwargs"]["features_per_stage"] = ["many"]
    assert network_cost(described, 1, 2) is None
    made = Part(described, (50, 50, 50), (2.0, 2.0, 2.0))
    assert estimate([made], 2).seconds is None
    assert estimate([made], 2, device="cuda").gpu_mb is None
    assert "unknown time" in estimate([made], 2).sentence()
    assert estimate([made], 2, seconds_per_forward=1.0).seconds > 1


# --- the whole -------------------------------------------------------------------------------------------------------------------


def test_members_and_passes_multiply_forwards_but_not_memory():
    one = estimate([part()], 6, seconds_per_forward=0.4)
    ten = estimate([part(members=10)], 6, seconds_per_forward=0.4)
    flipped = estimate([part(passes=8)], 6, seconds_per_forward=0.4)
    assert (ten.tiles, ten.forwards) == (10 * one.tiles, 10 * one.tiles)
    assert (flipped.tiles, flipped.forwards) == (one.tiles, 8 * one.tiles)
    assert flipped.seconds - one.seconds == pytest.approx(7 * one.tiles * 0.4)
    assert ten.seconds > 9 * one.forwards * 0.4
    assert estimate([part(members=5)], 6).ram_mb == ten.ram_mb
    assert (one.measured, estimate([part()], 6).measured) == (True, False)


def test_every_part_grows_with_what_it_depends_on():
    usual = estimate([part(members=2)], 6)
    larger = estimate([part((200, 240, 240), members=2)], 6)
    assert larger.seconds > 4 * usual.seconds
    assert larger.ram_mb > usual.ram_mb + 100
    assert larger.disk_mb > 5 * usual.disk_mb
    assert estimate([part(members=2)], 25).result_mb > 2 * usual.result_mb
    whole = estimate([part(members=2)], 6, full_volume=True)
    assert whole.result_mb > 2 * usual.result_mb
    assert whole.ram_least_mb == usual.ram_least_mb
    assert estimate([part(members=2)], 6, export=True).result_mb > 2 * usual.result_mb
    assert estimate([part(members=2)], 6, precision="bf16").seconds < usual.seconds
    assert estimate([part(members=2)], 6, threads=4).seconds < usual.seconds / 2
    assert estimate([part(members=2)], 6, step_size=1.0).tiles < usual.tiles


def test_measures_that_are_asked_for_take_maps_and_what_they_need_of_the_members_takes_cells():
    big = (200, 300, 300)
    usual = estimate([part(big, members=5)], 6, kept_bytes=0)
    more = estimate([part(big, members=5)], 6, measures=9, extras=13, kept_bytes=0)
    voxels = math.prod(big)
    assert more.result_mb - usual.result_mb == pytest.approx(3 * 4 * 0.4 * 0.5 * voxels / 1e6, rel=1e-3)
    # what averages over members lies beside the maps while these are made: a quarter and four tenths of the voxels
    assert more.scratch_mb - usual.scratch_mb == pytest.approx(4 * (13 * 0.25 + 3 * 0.4) * voxels / 1e6, rel=1e-3)
    assert more.scratch_least_mb == usual.scratch_least_mb
    assert more.seconds > usual.seconds
    alone = [estimate([part(big)], 6, extras=extras).scratch_mb for extras in (0, 13)]
    assert alone[0] == alone[1]


def test_what_each_member_draws_is_a_byte_on_the_disk_and_no_memory():
    few, many = (estimate([part((200, 300, 300), members=members)], 6, kept_bytes=0) for members in (2, 102))
    # in half of the quarter of the voxels that may be structure
    assert many.scratch_mb - few.scratch_mb == pytest.approx(100 * 0.125 * math.prod((200, 300, 300)) / 1e6)
    assert many.ram_mb == few.ram_mb


def test_logits_of_several_members_are_kept_on_the_disk_while_it_has_room():
    one, two, five = (estimate([part((200, 300, 300), members=members)], 6) for members in (1, 2, 5))
    logits = 2 * 6 * math.prod(five.grids[0])
    assert two.scratch_mb - one.scratch_mb == pytest.approx(2 * logits / 1e6)
    assert five.scratch_mb - two.scratch_mb == pytest.approx(3 * logits / 1e6)
    assert five.ram_mb == two.ram_mb
    assert five.scratch_least_mb == one.scratch_least_mb  # on a disk without room they are summed up
    just, short = (
        estimate([part((200, 300, 300), members=5)], 6, kept_bytes=room) for room in (5 * logits, 5 * logits - 1)
    )
    assert just == five
    assert short.scratch_mb != five.scratch_mb


def test_the_sum_of_logits_goes_to_the_disk_when_it_is_large():
    small, large = estimate([part((30, 60, 60))], 6), estimate([part((300, 400, 400))], 25)
    assert (small.scratch_least_mb, small.scratch_mb) == (0.0, 0.0)
    assert large.scratch_least_mb == pytest.approx(2 * 25 * 300 * 400 * 400 / 1e6)
    assert large.scratch_mb > large.scratch_least_mb


def test_a_gpu_takes_its_own_memory_and_less_of_the_computers():
    cpu, gpu = estimate([part()], 6), estimate([part()], 6, device="cuda:1")
    assert cpu.gpu_mb is None
    assert 0 < gpu.gpu_least_mb < gpu.gpu_mb
    assert gpu.ram_mb < cpu.ram_mb
    assert gpu.seconds < cpu.seconds
    assert "on the GPU" in gpu.sentence()
    assert "GPU memory" in gpu.sentence()
    assert "on the Apple GPU" in estimate([part()], 6, device="mps").sentence()


def test_the_channels_of_a_cascade_take_room_and_its_stages_follow_one_another():
    plain, second = estimate([part()], 26), estimate([part(channels=26)], 26)
    grid = 100 * 120 * 120
    assert second.ram_mb - plain.ram_mb > 25 * 4 * grid / 1e6
    first = estimate([part(target=(1.0, 1.0, 1.0))], 26)
    both = second.after(first)
    assert both.seconds == pytest.approx(first.seconds + second.seconds)
    assert both.tiles == first.tiles + second.tiles
    assert both.ram_mb == max(first.ram_mb, second.ram_mb)
    assert both.grids == first.grids + second.grids
    assert (both.gpu_mb, both.result_mb) == (None, second.result_mb)
    assert replace(second, seconds=None).after(first).seconds is None


def test_models_that_are_asked_together_each_have_a_grid_and_a_sum():
    big = (300, 400, 400)
    one, two = estimate([part(big)], 25), estimate([part(big), part(big, patch=(64, 64, 64))], 25)
    assert len(two.grids) == 2
    assert two.members == 2
    assert two.scratch_least_mb == pytest.approx(2 * one.scratch_least_mb)
    assert two.ram_mb > one.ram_mb


def test_the_estimate_is_plain_json_and_one_line():
    found = estimate([part(members=5, passes=8)], 6)
    again = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert again["tiles"] == found.tiles
    assert again["grids"] == [[100, 120, 120]]
    sentence = found.sentence("/somewhere/out")
    assert sentence.startswith("perhaps ")
    assert f"({found.tiles:,} tiles of 5 members, 8 passes each)" in sentence
    assert sentence.endswith("disk in /somewhere/out")
    assert "\n" not in sentence
    assert estimate([part()], 6, seconds_per_forward=0.1).sentence().startswith("about ")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0, "1 s"), (8.4, "8 s"), (89, "89 s"), (150, "2 min"), (5000, "83 min"), (9000, "2.5 h")]
)
def test_times_in_words(seconds, words):
    assert time_in_words(seconds) == words


@pytest.mark.parametrize(("size", "words"), [(0.0, "1 MB"), (20.4, "20 MB"), (1400, "1.4 GB"), (2.5e6, "2,500.0 GB")])
def test_sizes_in_words(size, words):
    assert size_in_words(size) == words


# --- preprocessing ---------------------------------------------------------------------------------------------------------------

PREPROCESS = """
import json, sys
import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from CalibUncertaintyLib.inference.prepare import _Resampling
from CalibUncertaintyLib.progress import _mark_mb, _reset_mark
for content, shape, spacing in json.loads(sys.argv[1]):
    manager = PlansManager(content)
    configuration = manager.get_configuration(next(iter(content["configurations"])))
    ct = np.random.default_rng(0).integers(-1000, 1000, shape, dtype=np.int16)
    _reset_mark()
    before = _mark_mb()
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, _, _ = preprocessor.run_case_npy(
        np.asarray(ct, np.float32)[None], None, {"spacing": spacing}, manager, _Resampling(configuration, preprocessor, False),
        {"labels": {"background": 0, "a": 1}})
    shape = list(data.shape[1:])
    del data
    print(json.dumps([_mark_mb() - before, shape]))
"""
CTS = {
    "same": ((100, 160, 160), (2.0, 1.5, 1.5), (2.0, 1.5, 1.5)),
    "whole": ((100, 160, 160), (2.0, 1.5, 1.5), (2.4, 1.8, 1.8)),
    "in plane": ((50, 256, 256), (5.0, 0.8, 0.8), (5.0, 1.0, 1.0)),
    "thick": ((50, 256, 256), (5.0, 0.8, 0.8), (4.0, 1.0, 1.0)),
}


@pytest.fixture(scope="module")
def preprocessed(repository):
    # each in a process of its own: what one leaves free in the heap the next would take without being seen
    return {
        name: in_a_process(PREPROCESS, [(plans(spacing=target), shape, spacing)], repository)[0]
        for name, (shape, spacing, target) in CTS.items()
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PEAK OF PREPROCESSING: only Linux lets its mark be set back")
@pytest.mark.parametrize("name", CTS)
def test_the_memory_of_preprocessing_is_told_within_a_factor_of_two(name, preprocessed):
    (shape, spacing, target), (peak, grid) = CTS[name], preprocessed[name]
    made = Part(plans(spacing=target)["configurations"]["3d_fullres"], shape, spacing)
    assert list(made.grid) == grid
    assert 0.5 < module.preprocess_bytes(made) / 1e6 / peak < 2
