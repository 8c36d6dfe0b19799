"""From measured rows to the table, the headline ratios and the goals. Pure functions; nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterable

STOCK, AVERAGE, FAIR, OURS = "stock command", "average of .npz", "stock in process", "ours"

KEYS = (
    "ratio_time_fp32", "ratio_time_bf16", "not_forward_share", "ratio_memory_25", "memory_growth_m10", "max_abs_dp",
    "different_labels",
)  # fmt: skip

# name: (the limit in words, whether the figure meets it)
GOALS = {
    "ratio_time_fp32": ("at least 2.5 times faster than the stock runs", lambda value: value >= 2.5),
    "ratio_time_bf16": ("at least 5 times faster than the stock runs", lambda value: value >= 5),
    "not_forward_share": ("at most 0.10 of the forward time", lambda value: value <= 0.10),
    "ratio_memory_25": ("at most 0.25 of stock's peak", lambda value: value <= 0.25),
    "memory_growth_m10": ("below 0.05 from one member to ten", lambda value: value < 0.05),
    "max_abs_dp": ("at most 0.002 inside the boxes", lambda value: value <= 2e-3),
}


def row_of(setup: str, way: str, spec: dict, figures: dict, watched=None) -> dict:
    """One measured process as a row. watched: `tree_memory.Watched`, or None where it could not be run."""
    row = {
        "setup": setup, "way": way, "members": spec["members"], "classes": spec["classes"], "flips": spec["flips"],
        "precision": spec.get("precision", "stock"), "note": spec.get("note", ""),
    }  # fmt: skip
    if "skipped" in figures:
        return {**row, "skipped": figures["skipped"]}
    forward = figures.get("forward_s")
    row.update(
        wall_s=figures["start_s"] + figures["work_s"],
        start_s=figures["start_s"],
        forward_s=forward,
        rest_s=figures["work_s"] - (forward or 0.0),
        tiles=figures.get("tiles", 0),
        hwm_mb=figures["hwm_mb"],
    )
    if watched is not None:
        hwm = max(watched.hwm_mb, row["hwm_mb"])
        row.update(hwm_mb=hwm, rss_mb=max(watched.rss_mb, hwm), peak_mb=max(watched.pss_mb, hwm))
    row.update({key: figures[key] for key in ("told", "gpu_mb", "read_s") if key in figures})
    return row


def several_runs(runs: list[dict], average: dict | None, members: int) -> dict:
    """The stock path to a map of `members` members: the command that many times, then averaging. Peaks are the largest of any.

    runs: rows of the command, one a member, or a single one, which then counts for every member (and the note says so).
    """
    if len(runs) not in (1, members):
        raise ValueError(f"{len(runs)} runs cannot stand for {members} members")
    times = members // len(runs)
    row = {**runs[0], "way": "stock, all", "members": members}
    row["note"] = "one run x " + str(members) if times > 1 else "all runs done"
    for key in ("wall_s", "start_s", "forward_s", "rest_s", "tiles"):
        row[key] = times * sum(run[key] for run in runs)
    for key in ("peak_mb", "rss_mb", "hwm_mb"):
        row[key] = max(run[key] for run in runs)
    if average is not None:
        for key in ("wall_s", "start_s", "rest_s"):
            row[key] += average[key]
        for key in ("peak_mb", "rss_mb", "hwm_mb"):
            row[key] = max(row[key], average[key])
    return row


def find(rows: Iterable[dict], **wanted) -> dict | None:
    """The first measured row in which every named value is as wanted."""
    for row in rows:
        if "skipped" not in row and all(row.get(key) == value for key, value in wanted.items()):
            return row
    return None


def headlines(rows: list[dict], comparisons: list[dict], time_setup: str, memory_setup: str, growth_setup: str = "") -> dict:
    """The seven figures of the last line; None where what they need was not measured.

    *_setup: the names of the setups to take time, memory and the growth of memory from (growth: the memory setup by default).
    Times are whole walls, from the asking for a process to its answer, start of Python included. `not_forward_share` is
    what is neither start nor forward, over forward. Memory is `peak_mb`: the process tree with every page counted once, which
    spares stock the shared pages of its workers that a plain sum of resident memory counts again and again. Its growth is that of
    ten members over the mean of all runs of one: where glibc puts a layer's output is not the same twice, and moves the peak of
    every run by some per cent.
    """
    ours = [row for row in rows if row["way"] == OURS]
    many = max((row["members"] for row in ours if row["setup"] == time_setup and "skipped" not in row), default=0)
    exact = find(ours, setup=time_setup, members=many, precision="stock")
    half = find(ours, setup=time_setup, members=many, precision="bf16")
    stock = find(rows, setup=time_setup, members=many, way="stock, all")
    few, ten = (_mean_peak(ours, setup=growth_setup or memory_setup, members=m, precision="stock") for m in (1, 10))
    five = find(ours, setup=memory_setup, members=5, precision="stock") or find(ours, setup=memory_setup, precision="stock")
    heavy = [row for row in rows if row["setup"] == memory_setup and row["way"] == "stock, all"]
    checked = [item for item in comparisons if item["precision"] == "stock" and "max_abs_dp" in item]
    return {
        "ratio_time_fp32": _ratio(stock, exact, "wall_s"),
        "ratio_time_bf16": _ratio(stock, half, "wall_s"),
        "not_forward_share": exact["rest_s"] / exact["forward_s"] if exact and exact["forward_s"] else None,
        "ratio_memory_25": _ratio(five, max(heavy, key=lambda row: row["peak_mb"]), "peak_mb") if heavy else None,
        "memory_growth_m10": ten / few - 1 if ten and few else None,
        "max_abs_dp": max((item["max_abs_dp"] for item in checked), default=None),
        "different_labels": sum(item["different_labels"] for item in checked) if checked else None,
    }


def _ratio(above: dict | None, below: dict | None, key: str) -> float | None:
    return above[key] / below[key] if above and below else None


def _mean_peak(rows: Iterable[dict], **wanted) -> float | None:
    """Mean peak memory in MB of the measured rows in which every named value is as wanted; None without any."""
    peaks = [row["peak_mb"] for row in rows if find([row], **wanted)]
    return sum(peaks) / len(peaks) if peaks else None


def goal_lines(figures: dict) -> list[str]:
    """One line a goal: met, NOT MET, or not measured."""
    lines = []
    for key, (words, holds) in GOALS.items():
        value = figures[key]
        verdict = "not measured" if value is None else "met" if holds(value) else "NOT MET"
        lines.append(f"{key:18s} {'-' if value is None else f'{value:.4g}':>8s}  goal: {words}: {verdict}")
    return lines


COLUMNS = (
    ("setup", "setup", "{}"), ("way", "way", "{}"), ("M", "members", "{}"), ("C", "classes", "{}"), ("flips", "flips", "{}"),
    ("precision", "precision", "{}"), ("wall s", "wall_s", "{:.1f}"), ("start s", "start_s", "{:.1f}"),
    ("forward s", "forward_s", "{:.1f}"), ("rest s", "rest_s", "{:.1f}"), ("s/tile", "s_per_tile", "{:.3f}"),
    ("peak MB", "peak_mb", "{:.0f}"), ("RSS MB", "rss_mb", "{:.0f}"), ("one MB", "hwm_mb", "{:.0f}"),
    ("GPU MB", "gpu_mb", "{:.0f}"), ("note", "note", "{}"),
)  # fmt: skip


def table(rows: list[dict]) -> str:
    """Rows as a Markdown table, aligned.

    rest: neither start nor forward. peak: the process tree, each page once. RSS: summed over its processes. one: the largest of
    them.
    """
    columns = [column for column in COLUMNS if column[1] != "gpu_mb" or any("gpu_mb" in row for row in rows)]
    lines = [[title for title, _, _ in columns]]
    for row in rows:
        shown = {**row, "flips": "yes" if row["flips"] else "no"}
        if row.get("tiles") and row.get("forward_s"):
            shown["s_per_tile"] = row["forward_s"] / row["tiles"]
        if "skipped" in row:
            shown["note"] = "SKIPPED: " + row["skipped"]
        lines.append(
            ["" if shown.get(key) is None else pattern.format(shown[key]) for _, key, pattern in columns]
        )
    return aligned(lines)


def comparison_table(comparisons: list[dict]) -> str:
    """The comparisons with stock as a Markdown table."""
    head = ["setup", "M", "flips", "precision", "largest |dp|", "labels differ", "beyond margin", "voxels", "boxes", "structures",
            "stock outside"]  # fmt: skip
    lines = [head]
    for item in comparisons:
        start = [item["setup"], str(item["members"]), "yes" if item["flips"] else "no", item["precision"]]
        if "max_abs_dp" not in item:
            lines.append([*start, "SKIPPED: " + item["skipped"], *[""] * 6])
            continue
        lines.append(
            [
                *start,
                f"{item['max_abs_dp']:.1e}",
                *(str(item[key]) for key in ("different_labels", "beyond_margin", "voxels")),
                f"{100 * item['box_share']:.0f} %",
                f"{100 * item['foreground_share']:.1f} %",
                f"{item['stock_foreground_outside']:.4f}",
            ]
        )
    return aligned(lines)


def aligned(lines: list[list[str]]) -> str:
    """A Markdown table from its head and rows, every column as wide as its widest entry."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    texts = ["| " + " | ".join(entry.ljust(width) for entry, width in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([texts[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *texts[1:]])


def stock_needs_mb(voxels: int, grid_voxels: int, classes: int) -> float:
    """Memory that stock's export of probabilities needs, MB: an estimate from its code, whose measured cases it meets within 20 %.

    Resampled logits in half precision, probabilities in float32 and, once more, put back into the uncropped volume; the logits
    on the network's grid in half precision twice, in the predictor and in its worker; 0.9 GB for two Pythons with PyTorch.
    """
    return (classes * (voxels * (2 + 4 + 4) + grid_voxels * 2 * 2)) / 1e6 + 900
