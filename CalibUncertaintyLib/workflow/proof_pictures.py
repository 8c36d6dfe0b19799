"""The pictures of a proof: reliability diagrams, and how the cases spread, before and after calibration."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from .proof_numbers import (
    BY_KEY,
    FEW_VOXELS,
    bins_of,
    by_class,
    case_ids,
    class_names,
    column,
    curve_of,
    number,
    pooled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's vermillion and blue: told apart by colour-blind readers; marker and line differ too, for prints without colour
SERIES = {"before": ("#D55E00", "o", "--"), "after": ("#0072B2", "s", "-")}
GREY, INK, FAINT, BAND = "#8A8A8A", "#222222", "#E4E4E4", "#F0F0F0"
OTHER_SCRIPTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Microsoft YaHei",
    "Yu Gothic",
    "Hiragino Sans",
    "Arial Unicode MS",
)
DOTS_PER_INCH = 150
FONT, SMALL = 11, 9.5
PANEL_INCHES = (3.1, 4.0)  # of one structure
ON_A_PAGE, MOST_CLASSES = 12, 48  # small multiples in one picture, so that it can be read when printed, and in all
VIOLIN_CASES, MANY_CASES = 5, 40  # fewer have no shape; more are drawn finer
LONGEST_NAME = 30
SUBJECT_PANELS = ("ece_toplabel", "signed_gap", "nll")


def draw(proof: Mapping, statistics: Mapping) -> dict[str, bytes]:
    """PNGs by file name: "reliability.png", "classes.png" ("classes_2.png", ... of many structures), "subjects.png".

    Those without anything to show are left out. Nothing at all without matplotlib. statistics: as `statistics_of` gives them.
    """
    return rendered(lambda: _painted(proof, statistics))


def rendered(painted: Callable[[], Iterable[tuple[str, Figure]]]) -> dict[str, bytes]:
    """PNGs of named figures, drawn in the style of all our pictures; nothing, and not called, without matplotlib."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError:
        return {}
    drawn = {}
    style = {
        "font.size": FONT, "font.family": _fonts(), "axes.spines.top": False, "axes.spines.right": False,
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    }  # fmt: skip
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in letters that the font has not
        for name, figure in painted():
            FigureCanvasAgg(figure)
            stream = io.BytesIO()
            figure.savefig(stream, format="png", dpi=DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
            drawn[name] = stream.getvalue()
    return drawn


def drawn_classes(proof: Mapping) -> list[str]:
    """The structures that get a diagram of their own: all, or of very many those with the largest ECE before calibration."""
    names, before = class_names(proof), by_class(proof["figures"]["before"])
    if len(names) > MOST_CLASSES:
        worst = set(sorted(names, key=lambda name: -_zero_if_unknown(_ece(before, name)))[:MOST_CLASSES])
        names = [name for name in names if name in worst]
    return names


def _painted(proof: Mapping, statistics: Mapping) -> Iterator[tuple[str, Figure]]:
    reliability, subjects, names = _reliability(proof), _subjects(proof, statistics), drawn_classes(proof)
    if reliability is not None:
        yield "reliability.png", reliability
    for start in range(0, len(names), ON_A_PAGE):
        number_of = "" if start == 0 else f"_{start // ON_A_PAGE + 1}"
        yield f"classes{number_of}.png", _classes(proof, names[start : start + ON_A_PAGE])
    if subjects is not None:
        yield "subjects.png", subjects


def _reliability(proof: Mapping) -> Figure | None:
    """The reliability diagram of the highest probability (Guo et al. 2017, Fig. 1), with the voxels of each bin below it."""
    bins = {when: bins_of(proof["figures"][when]) for when in SERIES}
    if not any(bins.values()):
        return None
    figure = _figure(7.6, 8.8)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for when in SERIES:
        _curve(above, below, bins[when], when, _legend_text(proof, when), size=7)
    if any(item["n"] < FEW_VOXELS for found in bins.values() for item in found):
        above.plot(
            [], [], "D", color=GREY, fillstyle="none", label=f"bin of fewer than {FEW_VOXELS} voxels (still in the ECE)"
        )
    _diagonal(above, "perfect calibration")
    for x, y, side, text in (
        (0.98, 0.03, "right", "below: over-confident"),
        (0.02, 0.95, "left", "above: under-confident"),
    ):
        above.text(x, y, text, transform=above.transAxes, ha=side, fontsize=SMALL)
    above.set_ylabel("Accuracy: share of voxels that are right (%)")
    figure.suptitle("Reliability, all voxels of all cases together", x=0.02, ha="left", fontsize=FONT + 1)
    above.legend(loc="lower left", bbox_to_anchor=(0.0, 1.01), fontsize=SMALL, frameon=False)  # clear of every curve
    _count_axis(below)
    below.set_ylabel("Voxels in bin")
    below.set_xlabel("Confidence: the highest probability (%)")
    return figure


def _classes(proof: Mapping, names: Sequence[str]) -> Figure:
    """One reliability diagram for each of these structures' own probability."""
    before, after = (by_class(proof["figures"][when]) for when in SERIES)
    columns = min(len(names), 3 if len(names) <= 6 else 4)
    rows = math.ceil(len(names) / columns)
    width, height = PANEL_INCHES[0] * columns + 1.1, PANEL_INCHES[1] * rows + 1.35
    figure = _figure(width, height, layout="none")  # places of its own: constrained layout gives up with this many axes
    outer = figure.add_gridspec(
        rows, columns, left=0.95 / width, right=1 - 0.2 / width, bottom=0.65 / height, top=1 - 0.85 / height,
        hspace=0.24, wspace=0.2,
    )  # fmt: skip
    for place, name in enumerate(names):
        above, below = outer[place].subgridspec(2, 1, height_ratios=[2.7, 1], hspace=0.1).subplots()
        for when, found in (("before", before), ("after", after)):
            _curve(above, below, bins_of(found.get(name, {})), when, None, size=4)
        _diagonal(above, None)
        above.set_title(_short(name), fontsize=FONT, loc="left")
        errors = [BY_KEY["ece_class"].text(_ece(found, name)) for found in (before, after)]
        above.text(0.04, 0.96, f"ECE {errors[0]} → {errors[1]} %", transform=above.transAxes, va="top", fontsize=SMALL)
        _count_axis(below)
        above.tick_params(labelbottom=False, labelsize=SMALL)
        below.tick_params(labelsize=SMALL)
    figure.text(0.5, 0.2 / height, "Probability of the structure (%)", ha="center", fontsize=FONT)
    figure.text(
        0.3 / width, 0.5, "Observed frequency (%); bars: voxels in bin", va="center", ha="center", rotation=90, fontsize=FONT
    )  # fmt: skip
    figure.legend(
        handles=_series_handles(), loc="upper left", bbox_to_anchor=(0.8 / width, 1 - 0.05 / height), ncols=3, fontsize=SMALL,
        frameon=False,
    )  # fmt: skip
    return figure


def _subjects(proof: Mapping, statistics: Mapping) -> Figure | None:
    """How the cases spread (after Rousseau et al. 2021, Fig. 3): one line a case, from before to after."""
    values = {key: [column(proof, when, key) for when in SERIES] for key in SUBJECT_PANELS}
    values = {key: pair for key, pair in values.items() if not all(map(math.isnan, (*pair[0], *pair[1])))}
    if not values:
        return None
    figure = _figure(3.9 * len(values) + 0.3, 5.6)
    for axes, (key, pair) in zip(figure.subplots(1, len(values), squeeze=False)[0], values.items(), strict=True):
        metric = BY_KEY[key]
        shown = [[value * metric.factor for value in of] for of in pair]
        _spread(axes, shown, case_ids(proof))
        if key == "signed_gap":
            _limit_band(axes, statistics["subjects"])
        title = f"{metric.title} of each case"
        if key == "signed_gap" and not math.isnan(number(statistics["subjects"]["limit"])):
            title += f"\nband: calibrated, |gap| ≤ {metric.text(number(statistics['subjects']['limit'])).lstrip('+')} %"
        axes.set_title(title, loc="left", fontsize=FONT + 1)
        axes.set_ylabel(f"{metric.heading}{', confidence − accuracy' if key == 'signed_gap' else ''}")
        if key != "signed_gap":
            axes.set_ylim(bottom=0)
    return figure


def _fonts() -> list[str]:
    """matplotlib's own font, then those for other scripts that are installed here."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in installed)]


def _figure(width: float, height: float, layout: str = "constrained") -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)


def _curve(above: Axes, below: Axes, bins: Sequence[Mapping], when: str, label: str | None, size: float) -> None:
    """Accuracy over confidence; bins with few voxels grey and not joined, nor passed over. Below, their voxels."""
    colour, marker, line = SERIES[when]
    few = [item for item in bins if item["n"] < FEW_VOXELS]
    filled = "none" if when == "before" else "full"
    above.plot(
        *curve_of(bins), color=colour, marker=marker, markersize=size, linestyle=line, linewidth=1.6, fillstyle=filled,
        label=label, zorder=3, clip_on=False,
    )  # fmt: skip
    above.plot(
        [100 * item["confidence"] for item in few], [100 * item["accuracy"] for item in few], color=GREY, marker=marker,
        markersize=0.8 * size, linestyle="none", fillstyle="none", zorder=2, clip_on=False,
    )  # fmt: skip
    for item in bins:
        half = 50 * (item["upper"] - item["lower"])
        start = 100 * item["lower"] + (half if when == "after" else 0)
        plenty = item["n"] >= FEW_VOXELS
        below.bar(
            start + 0.08 * half, item["n"], width=0.84 * half, align="edge", edgecolor=colour if plenty else GREY,
            facecolor=(colour if when == "after" else "white") if plenty else FAINT, linewidth=0.9,
        )  # fmt: skip


def _diagonal(axes: Axes, label: str | None) -> None:
    axes.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle=":", label=label, zorder=1)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xticks(range(0, 101, 20))
    axes.set_yticks(range(0, 101, 20))
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def _count_axis(axes: Axes) -> None:
    axes.set_xlim(0, 100)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.8)
    axes.set_xticks(range(0, 101, 20))
    axes.axhline(FEW_VOXELS, color=GREY, linewidth=0.9, linestyle=":")


def _legend_text(proof: Mapping, when: str) -> str:
    text = f"{when} calibration"
    for key in ("ece_toplabel", "nll"):
        value, metric = pooled(proof, when, key), BY_KEY[key]
        if not math.isnan(value):
            text += f", {metric.title} {metric.text(value)} {metric.unit}"
    return text


def _series_handles() -> list:
    from matplotlib.lines import Line2D

    found = [
        Line2D(
            [],
            [],
            color=colour,
            marker=marker,
            linestyle=line,
            fillstyle="none" if when == "before" else "full",
            label=when,
        )
        for when, (colour, marker, line) in SERIES.items()
    ]
    few = Line2D(
        [], [], color=GREY, marker="D", linestyle="none", fillstyle="none", label=f"fewer than {FEW_VOXELS} voxels"
    )
    return [*found, few]


def _spread(axes: Axes, pair: Sequence[Sequence[float]], ids: Sequence[str]) -> None:
    """Violins where there are enough cases, a line a case, the median as a bar; the worst case after calibration is named."""
    size, faint = (5, 0.8) if len(ids) <= MANY_CASES else (3, 0.25)
    for place, (values, when) in enumerate(zip(pair, SERIES, strict=True)):
        known = [value for value in values if not math.isnan(value)]
        colour, marker, _ = SERIES[when]
        if len(known) >= VIOLIN_CASES and max(known) > min(known):
            for body in axes.violinplot(known, [place], widths=0.62, showextrema=False)["bodies"]:
                body.set(facecolor=colour, alpha=0.22, edgecolor="none")
        if known:
            middle = sorted(known)
            median = (middle[(len(middle) - 1) // 2] + middle[len(middle) // 2]) / 2
            axes.plot(
                [place - 0.24, place + 0.24],
                [median, median],
                color=colour,
                linewidth=2.6,
                zorder=4,
                solid_capstyle="butt",
            )
        axes.plot(
            [place] * len(values), values, color=colour, marker=marker, markersize=size, linestyle="none",
            fillstyle="none" if when == "before" else "full", zorder=3,
        )  # fmt: skip
    for start, stop in zip(*pair, strict=True):
        axes.plot([0, 1], [start, stop], color=GREY, linewidth=0.8, alpha=faint, zorder=2)
    _name_the_worst(axes, pair[1], ids)
    axes.set_xlim(-0.5, 1.75)
    axes.set_xticks([0, 1], ["before", "after"])
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def _name_the_worst(axes: Axes, after: Sequence[float], ids: Sequence[str]) -> None:
    known = [(abs(value), value, name) for value, name in zip(after, ids, strict=True) if not math.isnan(value)]
    if len(known) > 1:
        _, value, name = max(known)
        axes.annotate(_short(name, 16), (1, value), (8, 0), textcoords="offset points", va="center", fontsize=SMALL)


def _limit_band(axes: Axes, subjects: Mapping) -> None:
    limit = number(subjects["limit"])
    axes.axhline(0, color=INK, linewidth=1, linestyle=":", zorder=1)
    if not math.isnan(limit):
        axes.axhspan(-100 * limit, 100 * limit, color=BAND, zorder=0)
        shares = [f"{when}\n{subjects[when]['over']} over, {subjects[when]['under']} under" for when in SERIES]
        axes.set_xticks([0, 1], shares)


def _ece(classes: Mapping, name: str) -> float:
    return number(classes.get(name, {}).get("ece"))


def _zero_if_unknown(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _short(name: str, longest: int = LONGEST_NAME) -> str:
    """A name for a picture: cut where it is long, and never read as a formula."""
    text = " ".join(str(name).split())
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return text.replace("$", r"\$")
