"""Pictures of results, for people who have never seen the project: each as SVG and as PNG.

matplotlib comes with the extra `bench` and is imported here alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pyrt.bench.results import percentile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pyrt.bench.results import Document, Run
    from pyrt.bench.spans import Span

_FLOOR, _OURS, _OTHERS, _GUEST = "#9a9a9a", "#d6336c", "#5c7cfa", "#f59f00"
_PARTS: Final = {"engine": "#1098ad", "keeper": "#f08c00", "child": "#37b24d"}
_INK: Final = "#333333"
# What explains pyrt's figures to who works on them, and nothing to anybody else.
_LEFT_OUT: Final = ("floor, host's network", "floor, host's users", "floor, pooled namespaces")
_ROW: Final = 0.34
"""Inches."""


class Bar(NamedTuple):
    """One line of the start-up picture, milliseconds."""

    name: str
    hot: float
    gap: float | None
    colour: str
    published: bool = False


def _colour(case: str) -> str:
    for word, colour in (("floor", _FLOOR), ("pyrt", _OURS), ("virtual machine", _GUEST)):
        if case.startswith(word):
            return colour
    return _OTHERS


def _new(width: float, height: float) -> tuple[Any, Any]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes: Any = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK)
    return figure, axes


def _save(figure: Any, folder: Path, name: str, footer: str) -> list[Path]:
    figure.supxlabel(footer, fontsize=7.5, color="#777777", x=0.01, ha="left")
    folder.mkdir(parents=True, exist_ok=True)
    return [_write(figure, folder / f"{name}.{kind}") for kind in ("svg", "png")]


def _write(figure: Any, path: Path) -> Path:
    # Without a date the same figures make the same file.
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def _milliseconds(value: float) -> str:
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 20 else f"{value:.1f} ms" if value >= 1 else f"{value:.2f} ms"


# ---- start-up ----


def startup(found: Document, folder: Path) -> list[Path]:
    """How long until a container's program runs, on a logarithmic scale: the quickest on top."""
    bars = _bars(found)
    figure, axes = _new(9.5, _ROW * len(bars) + 1.6)
    for place, bar in enumerate(bars):
        _draw_bar(axes, place, bar)
    axes.set_xscale("log")
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars], color=_INK)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: _milliseconds(value))
    axes.set_xlim(min(bar.hot for bar in bars) / 1.6, max(bar.hot for bar in bars) * 8)
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.set_title("How long until a container's program runs (logarithmic)", loc="left", color=_INK)
    axes.legend(handles=_legend(axes, bars), loc="upper right", fontsize=8, framealpha=1)
    return _save(figure, folder, "startup", _footer(found))


def _bars(found: Document) -> list[Bar]:
    hot, gap = found.runs[0], found.runs[1]
    bars = [
        Bar(row.case, row.summary["ready"].median, gap.median(row.case, "ready"), _colour(row.case))
        for run in (hot, *found.runs[2:])
        for row in run.rows
        if "ready" in row.summary and row.case not in _LEFT_OUT
    ]
    bars += [Bar(each.case, each.value, None, _GUEST, published=True) for each in found.published]
    return sorted(bars, key=lambda bar: bar.hot)


def _draw_bar(axes: Any, place: int, bar: Bar) -> None:
    style: dict[str, Any] = {"color": bar.colour}
    if bar.published:
        style = {"facecolor": "white", "edgecolor": bar.colour, "hatch": "////", "linewidth": 1.5}
    axes.barh(place, bar.hot, height=0.7, **style)
    text = f"  {_milliseconds(bar.hot)}{' at most, published' if bar.published else ''}"
    if bar.gap is not None:
        axes.plot(bar.gap, place, marker="D", markersize=5, color="white", markeredgecolor=_INK)
        text += f"   (pause: {_milliseconds(bar.gap)})"
    axes.text(max(bar.hot, (bar.gap or 0) * 1.05), place, text, va="center", fontsize=8.5, color=_INK)


def _legend(axes: Any, bars: Sequence[Bar]) -> list[Any]:
    kinds = {_OURS: "pyrt", _FLOOR: "the least that it takes: a C program, same container", _OTHERS: "other tools"}
    kinds[_GUEST] = "virtual machine"
    found = [
        Patch(color=colour, label=text) for colour, text in kinds.items() if any(bar.colour == colour for bar in bars)
    ]
    [gap] = axes.plot(
        [], [], marker="D", linestyle="", color="white", markeredgecolor=_INK, label="after a pause of 100 ms"
    )
    return [*found, gap]


def _footer(found: Document) -> str:
    count = max((summary.count for row in found.runs[0].rows for summary in row.summary.values()), default=0)
    lines = [f"Medians of {count}, all in turn on one machine: {found.machine.line()}"]
    emulated = [row.version for run in found.runs for row in run.rows if "emulated" in row.case and row.samples]
    if emulated:
        lines.append(f"TCG (emulated): this machine's KVM boots no guest; {emulated[0]}, to the first line of its init")
    lines += [f"{each.case}: {each.source}" for each in found.published]
    return "\n".join(lines)


# ---- one start, step by step ----


def waterfall(spans: Sequence[Span], paths: Sequence[Path], title: str, footer: str = "") -> None:
    """Who does what, and when: into files whose names say their form."""
    whole = max(span.done for span in spans)
    figure, axes = _new(9.5, 0.27 * len(spans) + 1.4)
    for place, span in enumerate(spans):
        took = span.done - span.begun
        axes.barh(place, took, left=span.begun, height=0.72, color=_PARTS.get(span.part, _OTHERS))
        right = span.done < whole * 0.8
        edge = span.done if right else span.begun
        text = f" {took:.0f} us" if right else f"{took:.0f} us "
        axes.text(edge, place, text, va="center", ha="left" if right else "right", fontsize=8, color=_INK)
    axes.set_yticks(range(len(spans)), [span.name for span in spans], fontsize=8.5, color=_INK)
    axes.invert_yaxis()
    axes.set_xlim(0, whole * 1.02)
    axes.set_xlabel("microseconds since the request", color=_INK)
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", color=_INK)
    parts = {"engine": "engine (Python)", "keeper": "keeper (Rust, host's rights)", "child": "child (Rust, inside)"}
    shown = [
        Patch(color=_PARTS[part], label=text) for part, text in parts.items() if any(s.part == part for s in spans)
    ]
    axes.legend(handles=shown, loc="upper right", fontsize=8, framealpha=1)
    figure.supxlabel(footer, fontsize=7.5, color="#777777", x=0.01, ha="left")
    for path in paths:
        _write(figure, path)


# ---- throughput, slopes ----


def throughput(found: Document, folder: Path) -> list[Path]:
    """Containers a second against how many are under way at once; a panel for each kind of network."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained", facecolor="white")
    for axes, run in zip(figure.subplots(1, len(found.runs), squeeze=False)[0], found.runs, strict=True):
        _draw_lines(axes, run, "at once", "containers a second, with full tear-down")
    return _save(figure, folder, "throughput", found.machine.line())


def slopes(found: Document, folder: Path) -> list[Path]:
    """How a start depends on what else there is; a panel for each."""
    figure = Figure(figsize=(9.5, 6.2), layout="constrained", facecolor="white")
    rows = (len(found.runs) + 1) // 2
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, run in zip(panels, found.runs, strict=False):
        _draw_slope(axes, run)
    for axes in panels[len(found.runs) :]:
        axes.set_visible(False)
    return _save(
        figure, folder, "slopes", f"Medians, and the band of half of all samples; flat is good. {found.machine.line()}"
    )


def _draw_slope(axes: Any, run: Run) -> None:
    """The band holds half of the samples: on a busy machine the last percent tells of the others."""
    rows = [row for row in run.rows if row.summary]
    places = range(len(rows))
    samples = [row.samples["ready"] for row in rows]
    medians = [row.summary["ready"].median for row in rows]
    bounds = [[percentile(values, share) for values in samples] for share in (0.25, 0.75)]
    axes.fill_between(places, *bounds, color=_OURS, alpha=0.15, linewidth=0)
    axes.plot(places, medians, marker="o", color=_OURS)
    for place, median in zip(places, medians, strict=True):
        axes.annotate(
            _milliseconds(median), (place, median), (0, 7), textcoords="offset points", ha="center", fontsize=8
        )
    axes.set_xticks(places, [row.case for row in rows], fontsize=8)
    axes.set_ylim(0, 1.3 * max(*bounds[1], *medians))
    axes.margins(x=0.12)
    axes.set_title(run.title, loc="left", fontsize=10, color=_INK)
    axes.set_ylabel("ms to the first instruction", fontsize=8)
    axes.grid(axis="y", color="#e5e5e5")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_lines(axes: Any, run: Run, x: str, y: str) -> None:
    """Cases are called "NAME, N": a line for each name."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in run.rows:
        if row.summary:
            name, _, number = row.case.rpartition(", ")
            lines.setdefault(name, []).append((int(number), row.summary["rate"].median))
    for name, points in lines.items():
        axes.plot(
            *zip(*points, strict=True),
            marker="o",
            label=name,
            color=None if _colour(name) == _OTHERS else _colour(name),
        )
    axes.set_xscale("log", base=2)
    ticks = sorted({number for points in lines.values() for number, _ in points})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x)
    axes.set_ylabel(y, fontsize=9)
    axes.set_title(run.title, loc="left", fontsize=10, color=_INK)
    axes.grid(axis="y", color="#e5e5e5")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)
