"""Bits per dimension against what a model costs: a picture for each table that has something to show."""

from __future__ import annotations

import io
import json
import re
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from tools.leaderboard.rows import Row, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["AXES", "draw", "file_name", "label_points", "plot", "points"]

AXES = {"parameters": "parameters", "milliseconds": "milliseconds of log_prob, one image or vector"}
LINES = (
    "independent pixels", "PNG, an image a file", "WebP, an image a file", "JPEG XL, an image a file",
    "xz, all images in one file",
)  # fmt: skip
BESIDE = ((5, 5), (5, -5), (-5, 5), (-5, -5))
FURTHER = tuple((dx, dy) for dy in (17, -17, 29, -29, 41, -41, 53, -53) for dx in (5, -5))
SIDES = BESIDE + FURTHER
"""Where a label may stand by its point, in points; the first that is free. Further away a line leads to it."""
COLORS = {"model": "#3f51b5", "published": "#8d6e63"}


def points(table: Table, axis: str) -> list[tuple[str, str, float, float]]:
    """Name, kind of row, cost and figure (of one noise sample) of each row that has both.

    A published figure that is not comparable stands in the table with its reason, and beside no other in a picture.
    """
    found: list[tuple[str, str, float, float]] = []
    for row in table.rows:
        cost = row.parameters if axis == "parameters" else row.density_ms
        beside_others = row.what != "published" or row.comparable == "yes"
        if cost is not None and row.figure is not None and beside_others:
            found.append((row.name, row.what, float(cost), row.figure))
    return found


def file_name(table: Table, axis: str) -> str:
    """The picture's path relative to the docs."""
    return f"images/leaderboard/{re.sub(r'[^a-z0-9]+', '-', table.name)}-{axis}.svg"


def draw(table: Table, axis: str) -> str:
    """The picture as SVG. It carries its points as metadata, by which a test knows whether it is of today's figures."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "flowzoo", "svg.fonttype": "none", "font.size": 10}):
        buffer, described = io.StringIO(), json.dumps(points(table, axis))
        plot(table, axis).savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None, "Description": described}
        )
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def plot(table: Table, axis: str) -> Figure:
    """The picture as matplotlib's figure, higher where it has many points."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    found = points(table, axis)
    picture = Figure(figsize=(7.2, 4.0 + 0.12 * max(0, len(found) - 6)), layout="constrained")
    axes = picture.add_subplot()
    axes.set(xscale="log", xlabel=AXES[axis], ylabel=table.heading)
    if max(y for *_, y in found) > 2 * min(y for *_, y in found) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    axes.margins(x=0.25, y=0.15)
    if max(x for *_, x, _ in found) < 100 * min(x for *_, x, _ in found):
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(EngFormatter(sep="") if axis == "parameters" else "{x:g}")
    _baselines(axes, table)
    # Under the table of its data a model needs no more than the first part of its name.
    _points(axes, [(name.removesuffix(f"-{table.name}"), what, x, y) for name, what, x, y in found])
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return picture


def is_current(picture: str, table: Table, axis: str) -> bool:
    """Whether a picture that was drawn before has the points of today."""
    return json.dumps(points(table, axis)).replace('"', "&quot;") in picture.replace('"', "&quot;")


def _baselines(axes: Any, table: Table) -> None:
    rows: dict[str, Row] = {row.name: row for row in table.rows if row.what == "baseline"}
    found = sorted((row.figure, name) for name in LINES if (row := rows.get(name)) and row.figure is not None)
    for index, (figure, name) in enumerate(found):
        axes.axhline(figure, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
        right = 0.995 if index % 2 == 0 else 0.8  # neighbours may be closer than a line of text
        axes.annotate(
            name.partition(",")[0], (right, figure), xycoords=("axes fraction", "data"), ha="right", va="bottom",
            color="0.45", fontsize=8,
        )  # fmt: skip


def _points(axes: Any, found: list[tuple[str, str, float, float]]) -> None:
    """The models, and the line of those that no other beats on both axes."""
    for what, color in COLORS.items():
        chosen = [(x, y) for _, kind, x, y in found if kind == what]
        if chosen:
            face = color if what == "model" else "none"
            axes.scatter(
                *zip(*chosen, strict=True), s=36, facecolors=face, edgecolors=color, label=what, zorder=3
            )
    if front := _front(found):
        axes.plot(*zip(*front, strict=True), color=COLORS["model"], linewidth=1, alpha=0.5)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    label_points(axes, found)


def _front(found: list[tuple[str, str, float, float]]) -> list[tuple[float, float]]:
    """The corners of the stairs over the models that no other beats on both axes; none if there is but one."""
    best = sorted((x, y) for _, what, x, y in found if what == "model")
    steps = [(x, y) for i, (x, y) in enumerate(best) if all(y < other for _, other in best[:i])]
    between = [[(after[0], before[1]), after] for before, after in pairwise(steps)]
    return [*steps[:1], *chain(*between)] if between else []


def label_points(axes: Any, found: list[tuple[str, str, float, float]]) -> None:
    """Writes each name beside its point, on a side where nothing stands yet, if there is one.

    Args:
        axes: Matplotlib's, with the points and the scales already set.
        found: Name, kind of row, cost and figure of each.
    """
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()  # before, nothing has a place
    taken = [text.get_window_extent() for text in axes.texts]
    for *_, x, y in found:
        across, up = axes.transData.transform((x, y))
        taken.append(Bbox.from_extents(across - 4, up - 4, across + 4, up + 4))
    corners = [tuple(axes.transData.transform(corner)) for corner in _front(found)]
    taken += [Bbox(sorted(ends)).padded(1) for ends in pairwise(corners)]
    for name, what, x, y in sorted(found, key=lambda point: point[2]):
        for dx, dy in SIDES:
            text = axes.annotate(
                name, (x, y), xytext=(dx, dy), textcoords="offset points", fontsize=8, color=COLORS[what],
                ha="left" if dx > 0 else "right", va="bottom" if dy > 0 else "top",
            )  # fmt: skip
            box = text.get_window_extent()
            if (dx, dy) == SIDES[-1] or not any(box.overlaps(other) for other in taken):
                break
            text.remove()
        taken.append(box)
        if (dx, dy) in FURTHER:
            _lead(axes, box, (x, y), COLORS[what])


def _lead(axes: Any, box: Any, point: tuple[float, float], color: str) -> None:
    """A thin line from a point to its name, which stands nearer to another."""
    across, up = axes.transData.transform(point)
    end = (min(max(across, box.x0), box.x1), min(max(up, box.y0), box.y1))
    ends = zip(point, axes.transData.inverted().transform(end), strict=True)
    axes.plot(*ends, color=color, linewidth=0.6, alpha=0.6, scalex=False, scaley=False)
