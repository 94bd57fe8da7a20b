"""Pictures for TensorBoard and for files, as uint8 RGB arrays [height, width, 3].

Scans are shown as medical viewers show them: the first array axis runs to the right, the second one down. Pictures
are drawn on canvases of their own, never through pyplot, whose global state would leak between threads, and in
Matplotlib's own style, whatever the user's matplotlibrc says.
"""

from __future__ import annotations

import pathlib
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import image as mpl_image
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from tfaug.engine.errors import printable

Colours = Mapping[str, str]  # by structure, in the order of their classes, which begin at 1
Curves = Mapping[str, Sequence[float]]  # by name

DPI = 100
FONT = 9
# Lengths in inches.
TILE = 1.9
GAP = 0.05
TITLE = 0.22
LEGEND = 0.3  # of one row
LEGEND_ROW = 0.17  # of each further one
LEGEND_WIDTH = 4.2
CHART = (2.6, 1.9)  # least width and height
SQUARE = 1.8  # side of a chart of `agreement`
BETWEEN = (0.95, 0.62)  # gaps between such charts, for numbers and names
LONGEST_TITLE = 34  # characters above such a chart; longer titles are set smaller
MOST_TILES = 300  # of `overlay`: thousands take minutes, and are more than 2^16 pixels high
COLOUR_BAR = 0.55  # room to the right of a tile, for the bar and its numbers

TINY = 1e-6  # the smallest end of a colour scale, for fields that are zero everywhere


# Decorates functions that make figures. A "$" in the name of a case or structure does not begin mathematics.
in_our_style = style.context(["default", {"text.parse_math": False}])


class Comparison(NamedTuple):
    """Predicted values of a quantity beside those of the reference, and their agreement.

    Attributes:
      title: the quantity.
      unit: unit of the values.
      colour: colour of the points.
      predicted: [N], without NaN.
      reference: the same.
      bias: mean difference, NaN if there is none.
      limits: half the distance between the limits of agreement about the bias, or NaN.
      note: text in the title of the right chart.
    """

    title: str
    unit: str
    colour: str
    predicted: np.ndarray
    reference: np.ndarray
    bias: float
    limits: float
    note: str


class Arrows(NamedTuple):
    """Arrows in display coordinates (x to the right, y down): tails at (x, y), heads at (x + u, y + v)."""

    x: np.ndarray
    y: np.ndarray
    u: np.ndarray
    v: np.ndarray


def arrows(deformation: np.ndarray, step: int, enlarge: float = 1.0) -> Arrows:
    """The movement of content under a deformation, every `step` pixels.

    `warp` fills the pixel (i, j) from (i, j) - d[i, j], so each arrow ends on the pixel whose displacement it shows.

    Args:
      deformation: [X, Y, 2] in pixels.
      step: pixels between arrows.
      enlarge: factor on the arrows' lengths.
    """
    start = step // 2
    x, y = np.meshgrid(
        np.arange(start, deformation.shape[0], step),
        np.arange(start, deformation.shape[1], step),
        indexing="ij",
    )
    u, v = np.moveaxis(enlarge * deformation[x, y], -1, 0)
    return Arrows(x - u, y - v, u, v)


@in_our_style
def overlay(
    images: Sequence[np.ndarray | None],
    masks: Sequence[np.ndarray | None],
    titles: Sequence[str],
    colours: Colours,
    references: Sequence[np.ndarray] | None = None,
    columns: int = 5,
    one_window: bool = False,
    frames: Sequence[str | None] = (),
) -> np.ndarray:
    """Tiles of scans with the contours of their masks.

    Of more than `MOST_TILES`, those with a frame and an even selection of the others are drawn; a line below says so.

    Args:
      images: scans, each [X, Y]; their shapes may differ; None leaves a place empty.
      masks: integer masks of the same shapes, drawn in the structures' colours.
      titles: one for each tile.
      colours: colours of the structures.
      references: integer masks drawn dashed in the same colours, or None.
      columns: tiles in a row, at most.
      one_window: whether equal intensities look equal in all tiles; otherwise each tile has its own grey window.
      frames: for each tile, the colour of a frame around it and of its title, or None.
    """
    number, frames = len(images), [*frames, *[None] * (len(images) - len(frames))]
    chosen = _selection([bool(frame) for frame in frames])
    images, masks, titles, frames = ([values[k] for k in chosen] for values in (images, masks, titles, frames))
    references = None if references is None else [references[k] for k in chosen]
    columns = min(columns, len(images))
    shown = [np.ravel(image) for image in images if image is not None]
    shared = _window(np.concatenate(shown)) if one_window else None
    figure, tiles = _canvas(-(-len(images) // columns), columns, colours, titled_rows=True)
    for k, tile in enumerate(tiles.flat):
        if k >= len(images) or images[k] is None:
            tile.set_visible(False)
            continue
        _scan(tile, images[k], shared if one_window else _window(images[k]))
        if references is not None:
            _contours(tile, references[k], colours, linestyle="dashed")
        _contours(tile, masks[k], colours)
        title = tile.set_title(titles[k], fontsize=FONT, pad=3)
        if frames[k]:
            title.set_color(frames[k])
            for side in tile.spines.values():
                side.set(color=frames[k], linewidth=4)
    _legend(figure, colours, with_reference=references is not None)
    if len(images) < number:
        figure.text(0.01, 0.03 / figure.get_figheight(), f"{len(images)} of {number} are shown", fontsize=FONT)
    return rendered(figure)


def _selection(marked: Sequence[bool]) -> list[int]:
    """The numbers of at most `MOST_TILES` tiles: of those marked first, then of the others, each evenly spaced."""
    chosen: list[int] = []
    for wanted in (True, False):
        there, room = [k for k, mark in enumerate(marked) if mark == wanted], MOST_TILES - len(chosen)
        count = min(room, len(there))
        chosen += [there[k * len(there) // count] for k in range(count)]
    return sorted(chosen)


@in_our_style
def segmentation_panel(
    images: Sequence[np.ndarray],
    references: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    colours: Colours,
    names: Sequence[str] = (),
) -> np.ndarray:
    """One row per slice: the scan, the reference's contours, the predicted contours.

    Args:
      images: slices, each [X, Y].
      references: integer masks, each [X, Y].
      predictions: the same.
      colours: colours of the structures.
      names: names of the rows; may be empty.
    """
    figure, tiles = _canvas(len(images), 3, colours, left=TITLE if names else 0.0)
    for title, tile in zip(("scan", "reference", "prediction"), tiles[0]):
        tile.set_title(title, fontsize=FONT, pad=3)
    for row, image, reference, prediction in zip(tiles, images, references, predictions):
        for tile, mask in zip(row, (None, reference, prediction)):
            _scan(tile, image, _window(image))
            if mask is not None:
                _contours(tile, mask, colours)
    _name_rows(tiles, names)
    _legend(figure, colours)
    return rendered(figure)


@in_our_style
def generator_panel(
    images: Sequence[np.ndarray],
    fields: Sequence[np.ndarray],
    generated: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    generated_labels: Sequence[np.ndarray],
    kind: str,
    colours: Colours,
    names: Sequence[str] = (),
) -> np.ndarray:
    """One row per image: the input, the generator's field, the generated image, and the difference of the two.

    Args:
      images: input slices, each [X, Y].
      fields: each [X, Y, 2] in pixels for a deformation, [X, Y, 1] for an intensity mask.
      generated: generated slices, each [X, Y].
      labels: integer masks of the inputs, each [X, Y].
      generated_labels: integer masks of the generated slices.
      kind: "deform" or "intensity".
      colours: colours of the structures.
      names: names of the rows; may be empty.
    """
    figure, tiles = _canvas(len(images), 4, colours, left=TITLE if names else 0.0, bars=(1, 3))
    field_title, shown = _fields(tiles[:, 1], fields, kind)
    _colour_bar(tiles[:, 1], shown)
    _colour_bar(tiles[:, 3], _signed(tiles[:, 3], [new - old for new, old in zip(generated, images)]))
    for k, (tile_in, _, tile_out, _) in enumerate(tiles):
        window = _window(images[k])
        _scan(tile_in, images[k], window)
        _contours(tile_in, labels[k], colours)
        _scan(tile_out, generated[k], window)
        _contours(tile_out, generated_labels[k], colours)
    for title, tile in zip(("input", field_title, "generated", "generated \N{MINUS SIGN} input"), tiles[0]):
        tile.set_title(title, fontsize=FONT, pad=3)
    _name_rows(tiles, names)
    _legend(figure, colours)
    return rendered(figure)


@in_our_style
def draws_panel(
    image: np.ndarray,
    label: np.ndarray,
    fields: Sequence[np.ndarray],
    generated: Sequence[np.ndarray],
    generated_labels: Sequence[np.ndarray],
    kind: str,
    colours: Colours,
) -> np.ndarray:
    """What a generator makes of one image for several z: the fields above, the images with their labels below.

    Args:
      image: [X, Y], shown at the left.
      label: its integer mask.
      fields: for each z, [X, Y, 2] in pixels for a deformation, [X, Y, 1] for an intensity mask.
      generated: for each z, the generated image [X, Y].
      generated_labels: for each z, its integer mask.
      kind: "deform" or "intensity".
      colours: colours of the structures.
    """
    figure, tiles = _canvas(2, 1 + len(fields), colours, left=TITLE, bars=(len(fields),))
    title, shown = _fields(tiles[0, 1:], fields, kind)
    _colour_bar(tiles[:1, -1], shown)
    window = _window(image)
    for tile, scan, mask in zip(tiles[1], (image, *generated), (label, *generated_labels)):
        _scan(tile, scan, window)
        _contours(tile, mask, colours)
    _scan(tiles[0, 0], image, window)
    for k, tile in enumerate(tiles[0]):
        tile.set_title(f"z {k}" if k else "input", fontsize=FONT, pad=3)
    _name_rows(tiles, (title, "generated"))
    _legend(figure, colours)
    return rendered(figure)


def curves_page(title: str, panel: np.ndarray, steps: Sequence[int], charts: Mapping[str, Curves]) -> np.ndarray:
    """A page with a title, a picture, and charts of several curves each below it.

    Args:
      title: one or more lines; long ones are wrapped.
      panel: a picture [height, width, 3].
      steps: along the x axis of every chart.
      charts: by the chart's title, curves by name. The first curve of a chart stands out; all charts include 0.
    """
    columns, width = max(1, panel.shape[1] // int(CHART[0] * DPI)), panel.shape[1] / DPI
    fitting = int(72 * width / (0.6 * (FONT + 1)))  # a letter is about 0.6 of the font size wide
    lines = [broken for line in title.split("\n") for broken in textwrap.wrap(line, fitting)]
    rows, head = -(-len(charts) // columns), 0.1 + 0.2 * len(lines)
    height = head + panel.shape[0] / DPI + rows * CHART[1]
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.text(0.01, 1 - 0.05 / height, "\n".join(lines), fontsize=FONT + 1, va="top")
    figure.figimage(panel, 0, rows * CHART[1] * DPI)
    for index, (name, curves) in enumerate(charts.items()):
        row, column = divmod(index, columns)
        left, bottom = column * width / columns + 0.45, (rows - 1 - row) * CHART[1] + 0.3
        size = (width / columns - 0.55, CHART[1] - 0.55)
        chart = figure.add_axes((left / width, bottom / height, size[0] / width, size[1] / height))
        for k, (curve, values) in enumerate(curves.items()):
            style = {"linewidth": 1.6} if k == 0 else {"linewidth": 1.1, "linestyle": "dashed"}
            chart.plot(steps, values, label=curve, **style)
        chart.set_title(name, fontsize=FONT, pad=2)
        values = [value for curve in curves.values() for value in curve]
        low, high = chart.get_ylim()
        chart.set_ylim(low if min(values) < 0 else 0, high if max(values) > 0 else TINY)
        chart.tick_params(labelsize=FONT - 2, length=2, pad=1)
        chart.legend(fontsize=FONT - 2, frameon=False, borderpad=0.1, labelspacing=0.2)
    return rendered(figure)


@in_our_style
def agreement(comparisons: Sequence[Comparison]) -> np.ndarray:
    """Two charts for each quantity, two quantities in a row.

    The left one is a Bland-Altman plot: the differences over the means of both values, with the bias and the limits of
    agreement. The right one shows the predicted values over the reference values, with the line of equality.
    """
    columns = min(2, len(comparisons))
    rows = -(-len(comparisons) // columns)
    width, height = 2 * columns * (SQUARE + BETWEEN[0]), rows * (SQUARE + BETWEEN[1])
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    charts = figure.subplots(rows, 2 * columns, squeeze=False)
    left, bottom = 0.58, 0.37  # the rest is on the other side
    figure.subplots_adjust(
        left=left / width,
        right=1 - (BETWEEN[0] - left) / width,
        bottom=bottom / height,
        top=1 - (BETWEEN[1] - bottom) / height,
        wspace=BETWEEN[0] / SQUARE,
        hspace=BETWEEN[1] / SQUARE,
    )
    for chart in charts.flat[2 * len(comparisons) :]:
        chart.set_visible(False)
    for comparison, differences, values in zip(comparisons, charts.flat[::2], charts.flat[1::2]):
        _bland_altman(differences, comparison)
        _correlation(values, comparison)
    return rendered(figure)


def rendered(figure: Figure) -> np.ndarray:
    """The picture of a figure whose canvas is a FigureCanvasAgg.

    Control characters in names are drawn as escapes; characters that the font lacks as boxes, without a warning.
    """
    for text in figure.findobj(Text):
        text.set_text("\n".join(map(printable, text.get_text().split("\n"))))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())[..., :3]


@in_our_style
def save(picture: np.ndarray, path: pathlib.Path) -> None:
    """Writes a picture as PNG, whatever the file's suffix."""
    mpl_image.imsave(path, picture, format="png")


@in_our_style
def save_small(picture: np.ndarray, path: pathlib.Path) -> None:
    """Writes a picture as `save` does, in half the bytes: values are off by at most 4 of 255, black and white by 0."""
    rounded = np.minimum((picture.astype(np.uint16) + 4) // 8 * 8, 255)
    mpl_image.imsave(path, rounded.astype(np.uint8), format="png", pil_kwargs={"optimize": True})


def _bland_altman(chart, comparison):
    differences = comparison.predicted - comparison.reference
    means = (comparison.predicted + comparison.reference) / 2
    _points(chart, means, differences, comparison)
    chart.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    bias, limits = comparison.bias, comparison.limits
    lines = {bias + limits: "--", bias - limits: "--", bias: "-"}
    lines = {value: dash for value, dash in lines.items() if np.isfinite(value)}
    for value, dash in lines.items():
        chart.axhline(value, color="black", linewidth=0.9, linestyle=dash, zorder=1)
    # Beyond the right end of the lines, where there are no points.
    place = {"x": 1.03, "transform": chart.get_yaxis_transform(), "va": "center", "fontsize": FONT - 2}
    shown = [0, *differences, *lines]
    lowest, highest = min(shown), max(shown)
    margin = 0.1 * _span(lowest, highest)
    chart.set_ylim(lowest - margin, highest + margin)
    for value in lines:
        chart.text(y=value, s=f"{value:.3g}".replace("-", "\N{MINUS SIGN}"), **place)
    title = f"{comparison.title}, n = {differences.size}"
    _name_axes(chart, title, "mean of both", "prediction \N{MINUS SIGN} reference", comparison.unit)


def _correlation(chart, comparison):
    _points(chart, comparison.reference, comparison.predicted, comparison)
    values = np.concatenate([comparison.reference, comparison.predicted])
    lowest, highest = (values.min(), values.max()) if values.size else (0.0, 1.0)
    margin = 0.07 * _span(lowest, highest)
    ends = (lowest - margin, highest + margin)
    chart.plot(ends, ends, color="black", linewidth=0.9, linestyle="dotted", zorder=1)
    chart.set_xlim(ends)
    chart.set_ylim(ends)
    chart.set_aspect("equal", adjustable="box")
    _name_axes(chart, f"{comparison.title}, {comparison.note}", "reference", "prediction", comparison.unit)


def _span(lowest, highest):
    return highest - lowest if highest - lowest > TINY else 1.0


def _name_axes(chart, title, x, y, unit):
    chart.set_title(title, fontsize=FONT * min(1, LONGEST_TITLE / len(title)), pad=3)
    chart.set_xlabel(f"{x} ({unit})", fontsize=FONT - 1, labelpad=1)
    chart.set_ylabel(f"{y} ({unit})", fontsize=FONT - 1, labelpad=1)
    chart.tick_params(labelsize=FONT - 2, length=2, pad=1)


def _points(chart, x, y, comparison):
    style = {"marker": "o", "markersize": 4, "markeredgecolor": "#333333", "markeredgewidth": 0.5}
    chart.plot(x, y, linestyle="none", color=comparison.colour, **style)


def _fields(tiles, fields, kind):
    """Draws a generator's fields on one scale for all tiles; returns a title and the last image."""
    if kind == "deform":
        return _deformations(tiles, fields)
    if kind == "intensity":
        return "field (intensity)", _signed(tiles, [field[..., 0] for field in fields])
    raise ValueError(f"kind of generator: {kind!r}, not 'deform' or 'intensity'")


def _deformations(tiles, deformations):
    """Draws arrows over magnitudes, on one scale for all tiles; returns a title and the last image."""
    magnitudes = [np.linalg.norm(deformation, axis=-1) for deformation in deformations]
    largest = max(max(magnitude.max() for magnitude in magnitudes), TINY)
    step = max(min(magnitudes[0].shape) // 12, 1)
    enlarge = max(1, round(1.5 * step / largest))
    for tile, deformation, magnitude in zip(tiles, deformations, magnitudes):
        shown = tile.imshow(magnitude.T, cmap="viridis", vmin=0, vmax=largest)
        view = tile.axis()
        tile.quiver(
            *arrows(deformation, step, enlarge),
            color="white",
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.009,
        )
        tile.axis(view)  # arrows that reach beyond the image must not widen the view
    title = "field (px)" if enlarge == 1 else f"field (px), arrows \N{MULTIPLICATION SIGN}{enlarge}"
    return title, shown


def _signed(tiles, images):
    """Draws signed values in two colours, white at 0, on one scale for all tiles; returns the last image."""
    largest = max(max(np.abs(image).max() for image in images), TINY)
    for tile, image in zip(tiles, images):
        shown = tile.imshow(image.T, cmap="RdBu_r", vmin=-largest, vmax=largest)
    return shown


def _scan(tile, image, window):
    tile.imshow(image.T, cmap="gray", vmin=window[0], vmax=window[1], interpolation="nearest")


def _window(image):
    return np.percentile(image, (1, 99))


def _contours(tile, mask, colours, linestyle="solid"):
    for index, colour in enumerate(colours.values(), start=1):
        inside = (mask.T == index).astype(np.float32)
        if inside.any() and not inside.all():
            tile.contour(inside, levels=[0.5], colors=colour, linestyles=linestyle, linewidths=1.2)


def _canvas(rows, columns, colours, left=0.0, titled_rows=False, bars=()):
    """A figure of square tiles without ticks, with room for titles above them.

    Args:
      rows: rows of tiles.
      columns: columns of tiles.
      colours: colours of the structures, whose legend needs room below.
      left: inches kept free at the left.
      titled_rows: whether every row has that room, or only the first.
      bars: columns with room for a colour bar on their right.

    Returns:
      the figure and its axes [rows, columns].
    """
    bar_room = np.array([COLOUR_BAR if column in bars else 0.0 for column in range(columns)])
    lefts = left + GAP + np.arange(columns) * (TILE + GAP) + np.cumsum(bar_room) - bar_room
    width = lefts[-1] + TILE + bar_room[-1] + GAP
    if width < LEGEND_WIDTH:
        lefts, width = lefts + (LEGEND_WIDTH - width) / 2, LEGEND_WIDTH
    pitch = TILE + (TITLE if titled_rows else GAP)
    legend_rows = -(-(len(colours) + 2) // _legend_columns(colours, width))
    legend = LEGEND + (legend_rows - 1) * LEGEND_ROW
    height = TITLE + (rows - 1) * pitch + TILE + legend
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    tiles = np.empty((rows, columns), object)
    for row, column in np.ndindex(rows, columns):
        bottom = legend + (rows - 1 - row) * pitch
        box = (lefts[column] / width, bottom / height, TILE / width, TILE / height)
        tiles[row, column] = figure.add_axes(box, xticks=[], yticks=[], facecolor="black")
    return figure, tiles


def _colour_bar(tiles, shown):
    """Draws one bar on the right of a column of tiles, as tall as the column."""
    top, bottom = tiles[0].get_position(), tiles[-1].get_position()
    box = (top.x1 + 0.03 * top.width, bottom.y0, 0.05 * top.width, top.y1 - bottom.y0)
    bar = tiles[0].figure.add_axes(box)
    tiles[0].figure.colorbar(shown, cax=bar)
    bar.tick_params(labelsize=FONT - 1, length=2, pad=1)


def _name_rows(tiles, names):
    for row, name in zip(tiles, names):
        row[0].set_ylabel(name, fontsize=FONT, labelpad=3)


def _legend(figure, colours, with_reference=False):
    lines = {name: Line2D([], [], color=colour, linewidth=2) for name, colour in colours.items()}
    if with_reference:
        lines["prediction"] = Line2D([], [], color="black")
        lines["reference"] = Line2D([], [], color="black", linestyle="dashed")
    compact = {"borderpad": 0.1, "handlelength": 1.6, "handletextpad": 0.5, "columnspacing": 1.3, "labelspacing": 0.2}
    columns = _legend_columns(colours, figure.get_figwidth())
    figure.legend(lines.values(), lines, loc="lower center", ncols=columns, fontsize=FONT, frameon=False, **compact)


def _legend_columns(colours, width):
    """How many entries of the legend fit side by side in `width` inches."""
    longest = max(len(name) for name in (*colours, "prediction"))
    return max(1, int(width / (0.55 + 0.07 * longest)))
