"""The figures of an evaluation's report: budget curves, recall at equal flagged volume, reliability of voxels and of regions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from .evaluate_localisation import BUDGETS
from .proof_numbers import FEW_VOXELS, curve_of
from .proof_pictures import FAINT, FONT, GREY, INK, SMALL, rendered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours without yellow, and lines that differ too, for prints without colour
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINES, MARKERS = ("-", "--", "-.", (0, (1, 1.2))), "osD^vPX"
PANEL = (5.2, 3.9)  # inches
MOST_PANELS = 8


def draw(content: Mapping) -> dict[str, bytes]:
    """PNGs by name: "budget", "recall", "reliability", "regions"; without what there is nothing of, none without matplotlib.

    content: as of evaluation.json, with NaN where a figure is unknown.
    """
    return rendered(lambda: _painted(content))


def _painted(content: Mapping) -> Iterator[tuple[str, Figure]]:
    there = {name: of for name, of in content["configurations"].items() if of.get("measures")}
    shown, domain = dict(list(there.items())[:MOST_PANELS]), content["options"]["roi_reference"]
    if any(_curves(of, domain) for of in shown.values()):
        yield "budget", _budget(shown, domain)
        yield "recall", _recall(shown, domain)
    if any(item["n"] for of in there.values() for item in of["calibration"]["union"]["bins"]):
        yield "reliability", _reliability(there)
    if any(of["regions"]["reliability"] for of in there.values()):
        yield "regions", _regions(there)


def _figure(
    panels: int, width: float = PANEL[0], height: float = PANEL[1], extra: float = 0.0
) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    columns = min(panels, 2)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(width * columns + extra, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for left_over in axes[panels:]:
        left_over.set_axis_off()
    return figure, axes[:panels]


def _curves(of: Mapping, domain: str) -> dict[str, Mapping]:
    """The mean budget curves of one configuration, by measure, of measures with any case that has errors."""
    found = {name: measure["domains"].get(domain, {}).get("budget") for name, measure in of["measures"].items()}
    return {name: curve for name, curve in found.items() if curve and any(curve["overlap"]["used"])}


def _style(number: int) -> dict:
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number // len(COLOURS) % len(LINES)]}


def _order(configurations: Mapping) -> list[str]:
    """Every measure of any configuration, so that it has one colour in all panels."""
    return list(dict.fromkeys(name for of in configurations.values() for name in of["measures"]))


def _titles(configurations: Mapping) -> dict[str, str]:
    return {
        name: measure["title"] or name for of in configurations.values() for name, measure in of["measures"].items()
    }


def _budget(configurations: Mapping, domain: str) -> Figure:
    """Error-Dice over the flagged share, mean over cases, with what is best possible and what chance gives."""
    figure, panels = _figure(len(configurations), extra=2.6)
    order, titles, drawn = _order(configurations), _titles(configurations), {}
    for axes, (name, of) in zip(panels, configurations.items(), strict=True):
        curves = _curves(of, domain)
        for measure, curve in curves.items():
            share = [0.0, *(100 * value for value in curve["share"])]
            (drawn[titles[measure]],) = axes.plot(
                share, [0.0, *curve["overlap"]["mean"]], linewidth=1.6, zorder=3, **_style(order.index(measure))
            )
        for kind, line, title in (("ideal", ":", "ideal: errors first"), ("random", (0, (5, 3)), "random order")):
            if curves:
                curve = next(iter(curves.values()))
                share = [0.0, *(100 * value for value in curve["share"])]
                (drawn[title],) = axes.plot(
                    share, [0.0, *curve[kind]["mean"]], color=GREY, linewidth=1.3, linestyle=line, zorder=2
                )
        axes.set_title(_short(name), loc="left", fontsize=FONT)
        _grid(axes)
        axes.set_xlim(0, 5)
        axes.set_xlabel("Flagged voxels (% of the ROI)", fontsize=SMALL)
        axes.set_ylabel("Overlap with the errors (Dice)", fontsize=SMALL)
    for axes in panels:
        axes.set_ylim(bottom=0)
    ordered = [titles[name] for name in order if titles[name] in drawn] + [t for t in drawn if t not in titles.values()]
    figure.legend([drawn[t] for t in ordered], ordered, loc="outside right upper", fontsize=SMALL, frameon=False)
    return figure


def _recall(configurations: Mapping, domain: str) -> Figure:
    """Which part of the errors on the boundary and off it lies in the flagged 1, 2 and 5 %; mean over cases, 95 % intervals."""
    order, titles = _order(configurations), _titles(configurations)
    wide = max(PANEL[0], 0.55 * len(order) + 1.6)
    figure, panels = _figure(2 * len(configurations), wide, 3.9)
    for row, (name, of) in enumerate(configurations.items()):
        there = [measure for measure in order if of["measures"].get(measure, {}).get("domains", {}).get(domain)]
        for axes, kind in zip(panels[2 * row : 2 * row + 2], ("boundary", "non_boundary"), strict=True):
            for place, share in enumerate(BUDGETS):
                found = [
                    of["measures"][m]["domains"][domain]["figures"].get(f"at_budgets.{share:g}.{kind}_recall")
                    for m in there
                ]
                _bars(axes, found, (place - 1) * 0.27, COLOURS[place], f"{100 * share:g} % of the ROI flagged")
            axes.set_xticks(range(len(there)), [titles[m] for m in there], rotation=35, ha="right", fontsize=SMALL)
            axes.set_title(
                f"{_short(name)}: errors {'on' if kind == 'boundary' else 'off'} the boundary",
                loc="left",
                fontsize=FONT,
            )
            axes.set_ylabel("Found (% of these errors)", fontsize=SMALL)
            _grid(axes, "y")
    panels[0].set_ylim(0, min(100.0, 1.1 * max(1.0, *(axes.dataLim.y1 for axes in panels))))  # shared by all
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=SMALL, frameon=False)
    return figure


def _bars(axes: Axes, found: Sequence[Mapping | None], shift: float, colour: str, label: str) -> None:
    means = [100 * _known(item, "mean") for item in found]
    places = [index + shift for index in range(len(found))]
    axes.bar(places, [0 if math.isnan(mean) else mean for mean in means], 0.25, color=colour, label=label, zorder=2)
    for place, mean, item in zip(places, means, found, strict=True):
        lower, upper = (100 * _known(item, end) for end in ("lower", "upper"))
        if not math.isnan(lower + upper + mean):
            axes.plot([place, place], [lower, upper], color=INK, linewidth=0.9, zorder=3)
        elif math.isnan(mean):
            axes.text(place, 1, "–", ha="center", fontsize=SMALL)


def _known(item: Mapping | None, key: str) -> float:
    return math.nan if item is None else float(item[key])


def _reliability(configurations: Mapping) -> Figure:
    """Accuracy over confidence, all voxels of all cases near prediction or reference, one line a configuration."""
    figure, (axes,) = _figure(1, 6.4, 5.4, extra=1.6)
    for number, (name, of) in enumerate(configurations.items()):
        bins = [item for item in of["calibration"]["union"]["bins"] if item["n"]]
        few = [item for item in bins if item["n"] < FEW_VOXELS]
        marker = MARKERS[number % len(MARKERS)]
        axes.plot(
            *curve_of(bins), marker=marker, markersize=5, linewidth=1.6, label=_short(name), zorder=3, clip_on=False,
            **_style(number),
        )  # fmt: skip
        axes.plot(
            [100 * item["confidence"] for item in few], [100 * item["accuracy"] for item in few], marker=marker, markersize=4,
            color=GREY, linestyle="none", fillstyle="none", zorder=2, clip_on=False,
        )  # fmt: skip
    _diagonal(axes)
    axes.set_xlabel("Confidence: the highest probability (%)")
    axes.set_ylabel("Accuracy: share of voxels that are right (%)")
    figure.legend(loc="outside right upper", fontsize=SMALL, frameon=False)
    return figure


def _regions(configurations: Mapping) -> Figure:
    """How many of the regions with about this stated chance hold an error."""
    figure, (axes,) = _figure(1, 6.4, 5.4, extra=1.6)
    for number, (name, of) in enumerate(configurations.items()):
        bins = of["regions"]["reliability"]
        if bins:
            title = f"{_short(name)} ({of['regions']['with_chance']} regions)"
            axes.plot(
                [100 * item["chance"] for item in bins], [100 * item["share"] for item in bins],
                marker=MARKERS[number % len(MARKERS)], linewidth=1.6, label=title, zorder=3, clip_on=False,
                **_style(number),
            )  # fmt: skip
    _diagonal(axes)
    axes.set_xlabel("Stated chance that the region holds an error (%)")
    axes.set_ylabel("Regions that hold one (%)")
    figure.legend(loc="outside right upper", fontsize=SMALL, frameon=False)
    return figure


def _diagonal(axes: Axes) -> None:
    axes.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle=":", label="perfect calibration", zorder=1)
    axes.set(xlim=(0, 100), ylim=(0, 100), xticks=range(0, 101, 20), yticks=range(0, 101, 20))
    _grid(axes)


def _grid(axes: Axes, axis: str = "both") -> None:
    axes.grid(axis=axis, color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def _short(name: str, longest: int = 34) -> str:
    """A name for a picture: cut where it is long, and never read as a formula."""
    name = name if len(name) <= longest else f"{name[: longest - 1]}…"
    return name.replace("$", r"\$")
