"""Before the computing: what is refused with numbers, what is only a warning, and where those numbers come from."""

import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.inference.estimate import Part, estimate
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow import memory, preflight
from CalibUncertaintyLib.workflow.memory import Available, free_memory, own_memory
from CalibUncertaintyLib.workflow.preflight import check_ct_size, check_fits, estimate_run, input_channels

GB = 1e3  # in MB


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), plans())


@pytest.fixture
def ct(tmp_path):
    return Volume.read(write_ct(tmp_path / "ct.nii.gz"))


@pytest.fixture
def needed():
    """A run whose needs are round numbers."""
    part = Part(plans()["configurations"]["3d_fullres"], (100, 100, 100), (2.0, 1.5, 1.5))
    return replace(
        estimate([part], 3), ram_mb=8 * GB, ram_least_mb=6 * GB, worst_stage="write", scratch_mb=2 * GB, scratch_least_mb=1 * GB,
        result_mb=1 * GB,
    )  # fmt: skip


@pytest.fixture
def computer(monkeypatch):
    """A computer with as much memory, GPU memory and disk as is set here."""
    has = SimpleNamespace(memory=Available(100 * GB, "free of 128.0 GB"), gpu=Available(80 * GB, "of 80.0 GB of cuda"), disk=1e6)
    monkeypatch.setattr(preflight, "free_memory", lambda: has.memory)
    monkeypatch.setattr(preflight, "own_memory", lambda: 0.0)
    monkeypatch.setattr(preflight, "free_gpu_memory", lambda device: has.gpu)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: SimpleNamespace(free=has.disk * 1e6))
    return has


def one_line(refusal):
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


# --- refusals and warnings -------------------------------------------------------------------------------------------------------


def test_where_everything_fits_nothing_is_said(needed, computer, tmp_path):
    assert check_fits(needed, "cpu", tmp_path) == []


def test_too_little_memory_is_refused_with_both_numbers_and_a_way_out(needed, computer, tmp_path):
    computer.memory = Available(4.9 * GB, "free of 8.0 GB")
    with pytest.raises(CalibUncertaintyError) as refusal:
        check_fits(needed, "cpu", tmp_path)
    assert "6.0 GB of memory and 4.9 GB are there (free of 8.0 GB)" in one_line(refusal)
    assert "crop the CT" in str(refusal.value)


@pytest.mark.parametrize("free", [5.1, 6.5, 8.5, 9.5])
def test_a_border_case_of_memory_is_a_warning(free, needed, computer, tmp_path):
    computer.memory = Available(free * GB, "free of 16.0 GB")
    (warning,) = check_fits(needed, "cpu", tmp_path)
    assert f"8.0 GB of memory (most while it does 'write') and {free:.1f} GB are there" in warning
    assert "--full-volume" not in warning
    (warning,) = check_fits(replace(needed, full_volume=True), "cpu", tmp_path)
    assert "leave --full-volume out" in warning


def test_memory_that_this_process_holds_already_and_swap_are_counted(needed, computer, tmp_path, monkeypatch):
    computer.memory = Available(4 * GB, "free of 8.0 GB")
    monkeypatch.setattr(preflight, "own_memory", lambda: 2 * GB)
    assert len(check_fits(needed, "cpu", tmp_path)) == 1
    monkeypatch.setattr(preflight, "own_memory", lambda: 0.0)
    computer.memory = Available(4 * GB, "free of 8.0 GB", swap_mb=8 * GB)
    assert len(check_fits(needed, "cpu", tmp_path)) == 1


def test_a_computer_that_does_not_tell_is_not_refused(needed, computer, tmp_path):
    computer.memory = computer.gpu = Available(None, "it does not tell")
    assert check_fits(replace(needed, gpu_mb=1e9, gpu_least_mb=1e9), "cuda", tmp_path) == []
    check_ct_size(tmp_path / "missing.nii.gz")


def test_too_little_gpu_memory_points_to_the_cpu(needed, computer, tmp_path):
    with_gpu = replace(needed, gpu_mb=20 * GB, gpu_least_mb=10 * GB)
    assert check_fits(with_gpu, "cuda", tmp_path) == []
    computer.gpu = Available(8 * GB, "of 12.0 GB of cuda")
    with pytest.raises(CalibUncertaintyError) as refusal:
        check_fits(with_gpu, "cuda", tmp_path)
    assert "10.0 GB of GPU memory and 8.0 GB are free (of 12.0 GB of cuda)" in one_line(refusal)
    assert "--device cpu" in str(refusal.value)
    computer.gpu = Available(9 * GB, "of 12.0 GB of cuda")
    (warning,) = check_fits(with_gpu, "cuda", tmp_path)
    assert "fewer tiles at a time" in warning
    assert check_fits(with_gpu, "cpu", tmp_path) == []  # nobody asks the GPU then


def test_too_little_disk_is_refused_only_for_what_is_sure(needed, computer, tmp_path):
    computer.disk = 0.8 * GB
    with pytest.raises(CalibUncertaintyError) as refusal:
        check_fits(needed, "cpu", tmp_path / "not" / "yet" / "there")
    assert "1.0 GB" in one_line(refusal)
    assert "800 MB free" in str(refusal.value)
    assert "--out" in str(refusal.value)
    computer.disk = 2 * GB
    (warning,) = check_fits(replace(needed, full_volume=True), "cpu", tmp_path)
    assert "3.0 GB" in warning
    assert "leave --full-volume out" in warning
    computer.disk = 10 * GB
    assert check_fits(needed, "cpu", tmp_path) == []


def test_a_disk_that_does_not_tell_is_not_refused(needed, computer, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(path)

    monkeypatch.setattr(preflight.shutil, "disk_usage", refuse)
    assert check_fits(needed, "cpu", tmp_path) == []


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nrrd", "ct.mha"])
def test_a_ct_larger_than_memory_is_refused_from_its_header(name, computer, tmp_path):
    path = write_ct(tmp_path / name)
    check_ct_size(path)
    computer.memory = Available(0.1, "free of 0.2 GB")
    with pytest.raises(CalibUncertaintyError) as refusal:
        check_ct_size(path)
    assert f"{path} (28 x 30 x 24 voxels)" in one_line(refusal)
    check_ct_size(Volume.read(path))  # it is in memory already


def test_a_folder_of_dicom_files_is_weighed_and_what_cannot_be_read_is_left_to_the_reading(computer, tmp_path):
    computer.memory = Available(1.0, "free of 1.0 GB")
    (tmp_path / "text.nii.gz").write_text("no image")
    check_ct_size(tmp_path / "text.nii.gz")
    check_ct_size(tmp_path / "missing.nii.gz")
    series = tmp_path / "dicom"
    series.mkdir()
    check_ct_size(series)
    for number in range(3):
        (series / f"{number}.dcm").write_bytes(bytes(500_000))
    with pytest.raises(CalibUncertaintyError, match="2 MB of files"):
        check_ct_size(series)


# --- a run's own estimate --------------------------------------------------------------------------------------------------------


def test_a_runs_estimate_has_the_grid_and_tiles_that_nnunet_makes(tmp_path, ct):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from CalibUncertaintyLib.inference.prepare import prepare_case
    from CalibUncertaintyLib.inference.sliding_window import SlidingWindow

    for index, (transpose, patch) in enumerate([((0, 1, 2), (16, 16, 16)), ((2, 0, 1), (8, 16, 24)), ((1, 0, 2), (16, 16))]):
        spacing = (2.5, 1.8, 2.1) if len(patch) == 3 else (1.8, 2.1)
        content = plans(spacing, transpose, patch=patch)
        chosen = MemberSet.choose([write_model(tmp_path / str(index), content)])
        found = estimate_run(chosen, ct, "cpu")
        manager = PlansManager(content)
        configuration = manager.get_configuration(next(iter(content["configurations"])))
        case = prepare_case(chosen.models[0], manager, configuration, [ct])
        assert found.grids == (tuple(case.data.shape[1:]),)
        assert found.tiles == 2 * SlidingWindow(case.data, patch, 0.5).tiles
        assert found.forwards == found.tiles * 2 ** len(patch)


def test_members_flips_and_dropout_are_counted(folder, ct):
    def counted(**options):
        found = estimate_run(MemberSet.choose([folder], **options), ct, "cpu")
        return found.members, found.forwards // found.tiles

    assert counted() == (2, 8)
    assert counted(flips="off") == (2, 1)
    assert counted(flips="members") == (16, 1)
    assert counted(folds=[0], dropout=5, flips="off", insert_dropout=0.1) == (5, 1)
    chosen = MemberSet.choose([folder])
    assert estimate_run(chosen, ct, flips_allowed=0).forwards == estimate_run(chosen, ct).tiles
    assert estimate_run(chosen, ct, n_members=[7]).members == 7


def test_a_cascades_second_stage_has_a_channel_for_each_structure(tmp_path, ct):
    content = plans()
    second = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    content["configurations"]["3d_lowres"] = dict(content["configurations"]["3d_fullres"], spacing=[4.0, 3.0, 3.0])
    content["configurations"]["3d_cascade_fullres"] = second
    folder = write_model(tmp_path, content)
    cascade = folder.rename(folder.with_name("nnUNetTrainer__nnUNetPlans__3d_cascade_fullres"))
    lowres = cascade.with_name("nnUNetTrainer__nnUNetPlans__3d_lowres")
    shutil.copytree(cascade, lowres)
    high, low = MemberSet.choose([cascade]), MemberSet.choose([lowres])
    assert (input_channels(high.models[0]), input_channels(low.models[0])) == (3, 1)
    both, first = estimate_run(high, ct), estimate_run(low, ct)
    assert both.grids == (first.grids[0], estimate_run(replace(high, before=None), ct).grids[0])
    assert both.tiles == first.tiles + estimate_run(replace(high, before=None), ct).tiles
    assert both.seconds > first.seconds


def test_regions_have_a_map_each_and_share_the_cascades_labels(tmp_path, ct):
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 3}
    content = plans()
    configuration = content["configurations"].pop("3d_fullres")
    content["configurations"]["3d_cascade_fullres"] = configuration | {"previous_stage": "3d_lowres"}
    content["configurations"]["3d_lowres"] = configuration
    for stage, channels in (("3d_lowres", 1), ("3d_cascade_fullres", 4)):
        folder = write_model(tmp_path, content, (0,), labels, configuration=stage, regions_class_order=[1, 2, 3])
        chosen = MemberSet.choose([folder])
        found = estimate_run(chosen, ct, full_volume=True)
        assert input_channels(chosen.models[0]) == channels
        # three regions, as many measures as always, and the distance, of every voxel; the sum of logits stays in memory
        assert found.scratch_mb == 0
        assert found.result_mb == pytest.approx(ct.array.size * (4 * (3 + 6 + 1) * 0.5 + 0.1) / 1e6)


def thin(slices, thickness):
    return Volume(np.zeros((slices, 30, 30), np.int16), (thickness, 1.5, 1.5), (0.0, 0.0, 0.0), np.eye(3))


def test_a_ct_of_one_slice_is_estimated_and_one_that_vanishes_on_the_grid_is_refused(folder):
    chosen = MemberSet.choose([folder])
    assert estimate_run(chosen, thin(1, 2.0)).grids == ((1, 30, 30),)
    with pytest.raises(CalibUncertaintyError) as refusal:
        estimate_run(chosen, thin(1, 0.5))
    assert "the CT is 0.5 mm thick along one axis (1 voxels)" in one_line(refusal)
    assert "voxels of 2 mm" in str(refusal.value)


def test_a_missing_checkpoint_and_a_measured_forward(folder, ct):
    chosen = MemberSet.choose([folder])
    assert preflight._size(folder / "missing.pth") == 0
    slow = estimate_run(chosen, ct, seconds_per_forward=3.0)
    assert slow.measured
    assert slow.seconds > 3.0 * slow.forwards


def test_one_estimate_runs_on_this_computer(folder, ct, tmp_path):
    assert check_fits(estimate_run(MemberSet.choose([folder]), ct), "cpu", tmp_path / "out") == []


# --- readers ---------------------------------------------------------------------------------------------------------------------


def test_this_computers_memory_is_told_or_a_reason_is_given():
    found = free_memory()
    assert found.source
    assert found.megabytes is None or 50 < found.megabytes < 1e8
    if sys.platform.startswith("linux"):
        assert 20 < own_memory() < 1e6
        assert found.megabytes is not None


def linux(tmp_path, meminfo, cgroup, files):
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(meminfo)
    (tmp_path / "proc" / "self" / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return memory._linux(tmp_path / "proc", tmp_path / "cgroup")


MEMINFO = "MemTotal:       16000000 kB\nMemFree:  100 kB\nMemAvailable:   10000000 kB\nSwapFree:        2000000 kB\n"


def test_a_computer_without_limits_tells_what_is_available(tmp_path):
    found = linux(tmp_path, MEMINFO, "0::/user\n", {"user/memory.max": "max\n", "user/memory.current": "1\n"})
    assert found == Available(10240.0, "free of 16.4 GB", 2048.0)


def test_a_containers_limit_is_found_where_only_its_root_is_mounted(tmp_path):
    files = {"memory.max": "4000000000\n", "memory.current": "3000000000\n", "memory.stat": "anon 1\ninactive_file 500000000\n"}
    found = linux(tmp_path, MEMINFO, "0::/docker/abc\n", files)
    assert found.megabytes == pytest.approx(1500)
    assert found.swap_mb == 0
    assert "4.0 GB that this container or job may use" in found.source


def test_the_tightest_of_nested_groups_counts_and_one_wider_than_the_computer_does_not(tmp_path):
    files = {
        "job/memory.max": "5000000000", "job/memory.current": "1000000000",
        "job/step/memory.max": "6000000000", "job/step/memory.current": "1000000000",
    }  # fmt: skip
    assert linux(tmp_path / "a", MEMINFO, "0::/job/step\n", files).megabytes == pytest.approx(4000)
    wide = {"job/memory.max": "500000000000", "job/memory.current": "0"}
    assert linux(tmp_path / "b", MEMINFO, "0::/job\n", wide).megabytes == 10240.0


def test_groups_of_version_one_are_read_and_their_no_limit_understood(tmp_path):
    lines = "9:name=systemd:/\n4:memory:/job\n0::/\n"
    files = {"memory/job/memory.limit_in_bytes": "2000000000", "memory/job/memory.usage_in_bytes": "500000000",
             "memory/job/memory.stat": "total_inactive_file 100000000\n", "memory/memory.limit_in_bytes": "9223372036854771712",
             "memory/memory.usage_in_bytes": "7"}  # fmt: skip
    assert linux(tmp_path, MEMINFO, lines, files).megabytes == pytest.approx(1600)


def test_a_system_that_tells_nothing_gives_the_reason(tmp_path, monkeypatch):
    assert linux(tmp_path, "", "", {}) == Available(None, "/proc/meminfo does not tell the memory")
    monkeypatch.setattr(memory.sys, "platform", "sunos5")
    monkeypatch.setattr(memory.os, "sysconf", lambda name: (_ for _ in ()).throw(ValueError(name)))
    assert free_memory() == Available(None, "sunos5 does not tell its memory")
    monkeypatch.setattr(memory.sys, "platform", "win32")
    assert free_memory() == Available(None, "Windows does not tell its memory")


def test_macos_tells_its_memory_in_all(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 4_000_000, "SC_PAGE_SIZE": 4096}.get, raising=False)
    assert free_memory().megabytes == pytest.approx(16384)


def test_a_gpus_memory_is_asked_of_pytorch(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3_000_000_000, 8_000_000_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1_000_000_000)
    assert memory.free_gpu_memory("cuda:0") == Available(4000.0, "of 8.0 GB of cuda:0")

    def broken(device):
        raise RuntimeError("no driver\nat all")

    monkeypatch.setattr(torch.cuda, "mem_get_info", broken)
    assert memory.free_gpu_memory("cuda").megabytes is None
    assert "no driver at all" in memory.free_gpu_memory("cuda").source
    assert memory.free_gpu_memory("xpu").megabytes is None


def test_the_header_of_a_nifti_tells_the_bytes_of_a_voxel(tmp_path):
    for name, kind, size in (("a", np.int16, 2), ("b", np.float64, 8), ("c", np.uint8, 1)):
        path = tmp_path / f"{name}.nii"
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), kind)), str(path))
        assert preflight._voxels_of(path) == (24, size, "4 x 3 x 2 voxels")
