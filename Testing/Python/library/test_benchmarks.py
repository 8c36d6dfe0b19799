"""The benchmarks' own sums: a benchmark that adds up wrongly is worse than none."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "Benchmarks"))
import comparison
import figures
import tree_memory

BENCHMARKS = Path(comparison.__file__).parent
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of a process tree is read from /proc")


def row(way, members=1, setup="a", precision="stock", **values):
    figured = {"wall_s": 10.0, "start_s": 1.0, "forward_s": 4.0, "rest_s": 5.0, "tiles": 8, "peak_mb": 100.0, "rss_mb": 200.0,
               "hwm_mb": 90.0, **values}  # fmt: skip
    named = {"setup": setup, "way": way, "members": members, "classes": 6, "flips": False, "precision": precision, "note": ""}
    return {**named, **figured}


@LINUX
def test_the_memory_of_a_child_and_its_child_is_added_up():
    code = """
import subprocess, sys, time
held = bytearray(b"x") * 200_000_000
grandchild = "import time; held = bytearray(b'x') * 150_000_000; time.sleep(0.8)"
subprocess.run([sys.executable, "-c", grandchild])
print("done")
"""
    watched = tree_memory.run_watched([sys.executable, "-c", code])
    assert watched.output.strip() == "done"
    assert watched.processes == 2
    assert 350 < watched.rss_mb < 420
    assert 350 < watched.pss_mb < 420
    assert 200 < watched.hwm_mb < 240
    assert watched.wall_s > 0.8


@LINUX
def test_a_process_above_the_limit_is_stopped_with_its_children():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; x = b\"x\" * 300_000_000; time.sleep(60)'])"
    watched = tree_memory.run_watched([sys.executable, "-c", code], limit_mb=150)
    assert watched.stopped.startswith("stopped at 0.")
    assert watched.wall_s < 30


@LINUX
def test_a_process_that_takes_too_long_is_stopped():
    watched = tree_memory.run_watched([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.5)
    assert watched.stopped == "stopped: it took too long"
    assert watched.returncode != 0


def test_a_row_takes_start_and_forward_from_the_wall():
    watched = tree_memory.Watched(0, 31.0, rss_mb=900.0, pss_mb=300.0, hwm_mb=500.0, processes=2, output="")
    told = {"start_s": 3.0, "work_s": 27.0, "forward_s": 20.0, "tiles": 40, "hwm_mb": 510.0}
    made = figures.row_of("a", figures.OURS, {"members": 5, "classes": 6, "flips": True}, told, watched)
    assert (made["wall_s"], made["rest_s"]) == (30.0, 7.0)
    assert (made["rss_mb"], made["peak_mb"], made["hwm_mb"]) == (900.0, 510.0, 510.0)


def test_one_run_stands_for_five_and_says_so():
    average = row(figures.AVERAGE, 5, wall_s=8.0, start_s=0.5, rest_s=7.5, forward_s=None, peak_mb=300.0)
    whole = figures.several_runs([row(figures.STOCK)], average, 5)
    assert (whole["wall_s"], whole["forward_s"], whole["rest_s"], whole["start_s"]) == (58.0, 20.0, 32.5, 5.5)
    assert (whole["peak_mb"], whole["rss_mb"]) == (300.0, 200.0)
    assert whole["note"] == "one run x 5"
    real = figures.several_runs([row(figures.STOCK, wall_s=10.0), row(figures.STOCK, wall_s=14.0)], None, 2)
    assert (real["wall_s"], real["note"]) == (24.0, "all runs done")
    with pytest.raises(ValueError, match="2 runs cannot stand for 5 members"):
        figures.several_runs([row(figures.STOCK)] * 2, None, 5)


def measured():
    rows = [
        row("stock, all", 5, wall_s=50.0),
        row(figures.OURS, 1, wall_s=3.0),
        row(figures.OURS, 5, wall_s=20.0, forward_s=10.0, rest_s=1.5),
        row(figures.OURS, 5, precision="bf16", wall_s=8.0),
        row("stock, all", 1, setup="b", peak_mb=4000.0),
        row("stock, all", 5, setup="b", peak_mb=4100.0),
        row(figures.OURS, 1, setup="b", peak_mb=800.0),
        row(figures.OURS, 5, setup="b", peak_mb=820.0),
        row(figures.OURS, 10, setup="b", peak_mb=832.0),
    ]
    comparisons = [
        {"setup": "a", "members": 5, "flips": False, "precision": "stock", "max_abs_dp": 1e-4, "different_labels": 2},
        {"setup": "b", "members": 1, "flips": False, "precision": "stock", "max_abs_dp": 3e-4, "different_labels": 1},
        {"setup": "a", "members": 5, "flips": False, "precision": "bf16", "max_abs_dp": 0.2, "different_labels": 500},
    ]
    return rows, comparisons


def test_the_headlines():
    found = figures.headlines(*measured(), "a", "b")
    assert tuple(found) == figures.KEYS
    assert found == pytest.approx(
        {
            "ratio_time_fp32": 2.5, "ratio_time_bf16": 6.25, "not_forward_share": 0.15, "ratio_memory_25": 0.2,
            "memory_growth_m10": 0.04, "max_abs_dp": 3e-4, "different_labels": 3,
        }
    )  # fmt: skip
    verdicts = [line.rsplit(": ", 1)[1] for line in figures.goal_lines(found)]
    assert verdicts == ["met", "met", "NOT MET", "met", "met", "met"]


def test_what_was_skipped_is_not_a_figure():
    rows, comparisons = measured()
    rows[3] = {"setup": "a", "way": figures.OURS, "members": 5, "precision": "bf16", "skipped": "no such option"}
    found = figures.headlines(rows, comparisons[2:], "a", "elsewhere")
    assert found["ratio_time_bf16"] is None
    assert found["ratio_memory_25"] is None
    assert found["memory_growth_m10"] is None
    assert found["max_abs_dp"] is None
    assert found["different_labels"] is None
    assert sum("not measured" in line for line in figures.goal_lines(found)) == 4
    assert figures.headlines(rows, comparisons, "a", "elsewhere", "b")["memory_growth_m10"] == pytest.approx(0.04)


def test_growth_of_memory_is_over_the_mean_of_all_runs_of_one_member():
    rows, comparisons = measured()
    rows += [row(figures.OURS, 1, setup="b", peak_mb=880.0), {**row(figures.OURS, 1, setup="b"), "skipped": "killed"}]
    assert figures.headlines(rows, comparisons, "a", "b")["memory_growth_m10"] == pytest.approx(832 / 840 - 1)


def test_the_table_shows_seconds_a_tile_and_says_what_was_skipped():
    named = {"setup": "a", "way": "stock", "members": 5, "classes": 25, "flips": True, "precision": "stock"}
    skipped = {**named, "skipped": "does not fit"}
    lines = figures.table([row(figures.OURS), skipped]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "0.500" in lines[2]
    assert "SKIPPED: does not fit" in lines[3]
    assert "GPU" not in lines[0]


def test_the_estimate_of_stocks_memory_meets_a_measured_case():
    """25 classes on 256 x 256 x 160 at 0.9 x 0.9 x 2.5 mm: 3.8 GB in one process, 4.1 GB from the command line."""
    assert figures.stock_needs_mb(160 * 256 * 256, 267 * 154 * 154, 25) == pytest.approx(4000, rel=0.2)


def test_labels_that_differ_are_counted_by_stocks_margin():
    p = np.zeros((3, 2, 2, 2), np.float32)
    p[:] = np.array([0.5, 0.4995, 0.0005])[:, None, None, None]
    p[:, 1, 1, 1] = [0.1, 0.8, 0.1]
    stock = p.argmax(axis=0).astype(np.uint8)
    ours = stock.copy()
    assert comparison.compare_labels(ours, stock, p)["different_labels"] == 0
    ours[0, 0, 0] = 1  # where stock's two best lie within its own rounding
    ours[1, 1, 1] = 0
    found = comparison.compare_labels(ours, stock, p)
    assert (found["different_labels"], found["beyond_margin"]) == (2, 1)
    assert found["widest_margin"] == pytest.approx(0.7)


def test_boxes_are_turned_into_array_order():
    box = {"start_xyz": [1, 2, 3], "size_xyz": [10, 20, 30]}
    start, boxes = comparison.boxes_of({"box": box})
    assert start == [3, 2, 1]
    assert boxes == [(slice(3, 33), slice(2, 22), slice(1, 11))]
    inner = {"start_xyz": [2, 3, 4], "size_xyz": [1, 1, 1]}
    assert comparison.boxes_of({"box": box, "boxes": [inner]})[1] == [(slice(4, 5), slice(3, 4), slice(2, 3))]


def test_the_made_network_finds_bright_structures_and_nothing_else():
    torch = pytest.importorskip("torch")
    pytest.importorskip("nnunetv2")
    import material
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    architecture = material.make_plans("tiny")["configurations"]["3d_fullres"]["architecture"]
    torch.manual_seed(0)
    network = get_network_from_plans(
        architecture["network_class_name"], architecture["arch_kwargs"], architecture["_kw_requires_import"], 1, 25,
        allow_init=True, deep_supervision=False,
    ).eval()  # fmt: skip
    material.make_localised(network, 0)
    image = torch.zeros(1, 1, 48, 48, 48)
    for index in range(1, 6):
        image[0, 0, 8 * index : 8 * index + 5, 4:10, 4:10] = float(material.TENTS[index])
    with torch.inference_mode():
        label = network(image)[0].argmax(dim=0)
    for index in range(1, 6):
        assert (label[8 * index + 1 : 8 * index + 4, 5:9, 5:9] == index).all()
    assert torch.equal(label > 0, image[0, 0] > 0)


@LINUX
@pytest.mark.slow
def test_the_whole_benchmark_on_a_dwarf(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "engine.py"), "--dwarf", "--work", str(tmp_path)]
    command += ["--json", str(tmp_path / "all.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert tuple(told) == figures.KEYS
    assert told["max_abs_dp"] <= 2e-3
    kept = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert kept["headlines"] == told
    assert all(item["beyond_margin"] == 0 for item in kept["comparisons"] if item["precision"] == "stock")
