"""The training curve as PNG, drawn with Pillow alone so that every run has one."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowzoo.atomic import write_chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

WIDTH, HEIGHT = 960, 540
LEFT, RIGHT, TOP, BOTTOM = 80, 48, 50, 60
INK, FAINT, STAGE = (40, 40, 40), (225, 225, 225), (150, 150, 150)
COLOURS = ((120, 160, 205), (200, 75, 45), (70, 130, 70), (125, 85, 160))
MANY_COLOURS = (
    (31, 119, 180), (214, 90, 20), (44, 140, 60), (190, 40, 50), (130, 90, 180), (120, 80, 70), (200, 80, 160),
    (90, 90, 90), (150, 150, 20), (20, 160, 175),
)  # fmt: skip

Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axes:
    """Data range of the plot: images seen across, bits per dimension upwards."""

    x_max: float
    y_min: float
    y_max: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Pixel of a point; values outside the range land on its edge."""
        share_x = min(1.0, x / self.x_max)
        share_y = (min(max(y, self.y_min), self.y_max) - self.y_min) / (self.y_max - self.y_min)
        return LEFT + share_x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - share_y * (HEIGHT - TOP - BOTTOM)


def curves_of(rows: Sequence[dict[str, Any]]) -> tuple[Points, Points]:
    """Training loss and validation of the rows of ``metrics.jsonl``, as (images seen, bits per dimension)."""
    column = _column(rows)
    return _points(rows, "train", "loss"), _points(rows, "valid", column)


def stages_of(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Images seen when a later stage of the training began."""
    return [float(row["images"]) for row in rows if row.get("kind") == "stage"]


def _column(rows: Sequence[dict[str, Any]]) -> str:
    """The column of the figure: ``bpd``, or ``nats_per_dim`` of a density."""
    return "nats_per_dim" if any("nats_per_dim" in row for row in rows) else "bpd"


def save_curve(rows: Sequence[dict[str, Any]], path: str | Path, *, title: str = "") -> None:
    """Draws one run: loss of the training windows, and validation with averaged weights.

    Where a later stage of the training began, on other images or with another learning rate, stands a vertical line.

    Raises:
        CheckpointError: The file cannot be written.
    """
    train, valid = curves_of(rows)
    unit = "nats" if _column(rows) == "nats_per_dim" else "bits"
    lines = [("training loss", train, False), ("validation", valid, True)]
    save_lines(lines, path, title=title, unit=unit, stages=stages_of(rows))


def save_comparison(
    runs: Sequence[tuple[str, Sequence[dict[str, Any]]]], path: str | Path, *, unit: str = "bits"
) -> None:
    """Draws several runs into one PNG: each run's validations in a colour, its training loss in a faint one.

    Args:
        runs: Name, and rows of ``metrics.jsonl``, of each.
        path: The file.
        unit: ``"bits"`` or ``"nats"``, per dimension.

    Raises:
        CheckpointError: The file cannot be written.
    """
    both = [(name, *curves_of(rows)) for name, rows in runs]
    lines = [points for _, *own in both for points in own]
    picture, draw, axes = _paper(lines, "", unit, key_rows=len(both))
    for i, (_, train, _) in enumerate(both):
        _draw_line(draw, axes, train, _faint(MANY_COLOURS[i % len(MANY_COLOURS)]), False)
    for i, (name, _, valid) in enumerate(both):
        colour = MANY_COLOURS[i % len(MANY_COLOURS)]
        _draw_line(draw, axes, valid, colour, True)
        _draw_key(draw, i, name, valid, colour)
    _save(picture, path)


def _faint(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (255 - (255 - part) * 2 // 5 for part in colour)
    return red, green, blue


def save_lines(
    lines: Sequence[tuple[str, Points, bool]],
    path: str | Path,
    *,
    title: str = "",
    unit: str = "bits",
    stages: Sequence[float] = (),
) -> None:
    """Draws named lines over images seen into a PNG, atomically.

    Args:
        lines: Name, points, and whether to mark the points and write the last value.
        path: The file.
        title: Text above the plot.
        unit: ``"bits"`` or ``"nats"``, per dimension.
        stages: Images seen where a thin vertical line marks the beginning of a stage.
    """
    picture, draw, axes = _paper([points for _, points, _ in lines], title, unit)
    _draw_stages(draw, axes, stages)
    rows = 0
    for i, (name, points, marked) in enumerate(lines):
        if not points:
            continue  # such as a loss that is no figure of the data
        _draw_line(draw, axes, points, COLOURS[i % len(COLOURS)], marked)
        _draw_key(draw, rows, name, points, COLOURS[i % len(COLOURS)])
        rows += 1
    _save(picture, path)


def _paper(
    lines: Sequence[Points], title: str, unit: str, *, key_rows: int = 0
) -> tuple[Image, ImageDraw, Axes]:
    """An empty plot that has room for lines, and above them for so many rows of the key."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    axes = _axes(lines)
    if key_rows:
        share = min(0.6, (22 * key_rows + 12) / (HEIGHT - TOP - BOTTOM))
        axes = Axes(axes.x_max, axes.y_min, axes.y_max + (axes.y_max - axes.y_min) * share / (1 - share))
    _draw_axes(draw, axes, f"{title}   {unit} per dimension".strip())
    return picture, draw, axes


def _save(picture: Image, path: str | Path) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_chunks(Path(path), [buffer.getvalue()])


def _points(rows: Sequence[dict[str, Any]], kind: str, key: str) -> Points:
    found = [(row["images"], row[key]) for row in rows if row.get("kind") == kind]
    return [
        (float(images), float(value)) for images, value in found if value is not None and math.isfinite(value)
    ]


def _axes(lines: Sequence[Points]) -> Axes:
    """Fits the range; the first steep drop is cut off so that the rest can be seen."""
    points = [point for line in lines for point in line]
    if not points:
        return Axes(1.0, 0.0, 8.0)
    values = sorted(y for _, y in points)
    low, high = values[0], values[min(len(values) - 1, int(0.95 * len(values)))]
    pad = 0.05 * (high - low) or 0.05
    return Axes(max(x for x, _ in points) or 1.0, low - pad, high + pad)


def ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Round numbers between two bounds."""
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]


def _draw_axes(draw: ImageDraw, axes: Axes, title: str) -> None:
    for y in ticks(axes.y_min, axes.y_max):
        _, row = axes.place(0, y)
        draw.line([(LEFT, row), (WIDTH - RIGHT, row)], fill=FAINT)
        draw.text((LEFT - 10, row), f"{y:g}", fill=INK, anchor="rm", font=_font(14))
    for x in ticks(0, axes.x_max, 8):
        column, _ = axes.place(x, axes.y_min)
        draw.line([(column, HEIGHT - BOTTOM), (column, HEIGHT - BOTTOM + 5)], fill=INK)
        draw.text(
            (column, HEIGHT - BOTTOM + 10),
            f"{x:,.0f}" if x == int(x) else f"{x:g}",
            fill=INK,
            anchor="ma",
            font=_font(14),
        )
    draw.line([(LEFT, TOP), (LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, HEIGHT - BOTTOM)], fill=INK)
    draw.text((LEFT, 14), title, fill=INK, font=_font(17))
    draw.text((WIDTH - RIGHT, HEIGHT - 24), "images seen", fill=INK, anchor="ra", font=_font(14))


def _draw_stages(draw: ImageDraw, axes: Axes, stages: Sequence[float]) -> None:
    for images in stages:
        column, _ = axes.place(images, axes.y_min)
        draw.line([(column, TOP), (column, HEIGHT - BOTTOM)], fill=STAGE)
        draw.text((column + 5, TOP + 4), "new stage", fill=STAGE, font=_font(12))


def _draw_line(
    draw: ImageDraw, axes: Axes, points: Points, colour: tuple[int, int, int], marked: bool
) -> None:
    pixels = [axes.place(x, y) for x, y in points]
    if len(pixels) > 1:
        draw.line(pixels, fill=colour, width=2 if marked else 1, joint="curve")
    for x, y in pixels if marked else []:
        draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)


def _draw_key(draw: ImageDraw, i: int, name: str, points: Points, colour: tuple[int, int, int]) -> None:
    last = f" {points[-1][1]:.4f} (best {min(y for _, y in points):.4f})" if points else ""
    top = TOP + 8 + 22 * i
    right = WIDTH - RIGHT - 12
    draw.text((right, top), f"{name}{last}", fill=colour, anchor="ra", font=_font(15))


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
