"""Charts as SVG, as wide as a phone; on wider screens, several stand side by side."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tfaug.report.page import Html, el

WIDTH = 340
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 12, 36  # margins of the axes
HEIGHT = 205
BAND = 20  # height of a box, with spacing
CONTRAST = 3.0  # least contrast between a curve and the page

INK = ("var(--c0)", "var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)")


class Curve(NamedTuple):
    """A curve of a chart.

    Attributes:
      x: ascending.
      y: as many values; those that are not finite are left out.
      colour: "#rrggbb"; None: the chart chooses.
      dashed: whether the line is dashed.
    """

    x: Sequence[float]
    y: Sequence[float]
    colour: str | None = None
    dashed: bool = False


def curves(title: str, found: Mapping[str, Curve], x_name: str = "step", limits=(None, None), marked=None) -> Html:
    """A chart of curves by name.

    Args:
      title: shown above it.
      found: the curves, at least one.
      x_name: name of the x axis.
      limits: (low, high) of the y axis; None: from the curves.
      marked: x of a vertical line.
    """
    xs = [x for curve in found.values() for x in curve.x]
    ys = [y for curve in found.values() for y in curve.y if math.isfinite(y)] or [0.0]
    low, high = (given if given is not None else reached for given, reached in zip(limits, (min(ys), max(ys))))
    frame = _Frame((min(xs), max(xs)), (low, high))
    drawn = [frame.axes(x_name)]
    if marked is not None:
        drawn.append(
            el("line", x1=_n(frame.x(marked)), x2=_n(frame.x(marked)), y1=TOP, y2=HEIGHT - BOTTOM, class_="axis dashed")
        )
    legend = {}
    for k, (name, curve) in enumerate(found.items()):
        ink = _ink(k, curve.colour)
        points = [(x, y) for x, y in zip(curve.x, curve.y) if math.isfinite(y)]
        path = " ".join(f"{_n(frame.x(x))},{_n(frame.y(y))}" for x, y in points)
        class_ = "curve dashed" if curve.dashed else "curve"
        drawn.append(el("polyline", points=path, class_=class_, style=ink))
        if len(points) <= 12:
            drawn += [
                el("circle", cx=_n(frame.x(x)), cy=_n(frame.y(y)), r=2.5, class_="dot", style=ink) for x, y in points
            ]
        legend[name] = Html(el("line", x1=0, x2=26, y1=6, y2=6, class_=class_, style=ink))
    return _figure(title, HEIGHT, drawn, legend, f"{title}: {', '.join(found)}")


def boxes(
    title: str,
    rows: Mapping[str, Mapping[str, Mapping[str, float]]],
    colours: Mapping[str, str],
    unit: str = "",
    limits: tuple[float, float] | None = (0.0, 1.0),
    points: bool = True,
    caption: str | None = None,
) -> Html:
    """Horizontal box plots: quartiles, the median, whiskers to the last value within 1.5 box lengths.

    Args:
      title: shown above them.
      rows: by name of the row, then of the box: values by their subject, such as a case. NaN is left out.
      colours: of the boxes by their name, "#rrggbb".
      unit: unit of the axis.
      limits: of the axis; None: from 0 to the largest value.
      points: whether each value is drawn as a point, or only outliers.
      caption: text below.
    """
    values = [v for of_row in rows.values() for of_box in of_row.values() for v in of_box.values() if math.isfinite(v)]
    low, high = limits or (0.0, max([*values, 1e-6]))
    named = len(rows) > 1 or any(rows)
    height = TOP + sum((16 if named else 0) + BAND * len(of_row) + 6 for of_row in rows.values()) + BOTTOM
    frame = _Frame((low, high), (0, 1), left=6, height=height)
    drawn, y = [frame.axes(unit, vertical=False)], float(TOP)
    for name, of_row in rows.items():
        if named:
            drawn.append(el("text", name, x=6, y=_n(y + 11)))
            y += 16
        for box, of_box in of_row.items():
            drawn += _box(frame, y + BAND / 2, of_box, colours[box], points)
            y += BAND
        y += 6
    legend = {
        name: el("rect", x=1, y=1, width=20, height=10, class_="box", fill=colour) for name, colour in colours.items()
    }
    return _figure(title, height, drawn, legend, f"{title}: box plots of {', '.join(colours)}", caption)


def _box(frame, middle, values, colour, points):
    found = np.array(sorted(v for v in values.values() if math.isfinite(v)))
    if not found.size:
        return [el("text", "undefined", x=8, y=_n(middle + 4), class_="soft")]
    first, median, third = np.percentile(found, (25, 50, 75))
    inside = found[(found >= first - 1.5 * (third - first)) & (found <= third + 1.5 * (third - first))]
    ends = [frame.x(v) for v in (inside.min(), first, median, third, inside.max())]
    half = BAND * 0.36
    whisker = f"M{_n(ends[0])} {_n(middle - 3)}v6m0 -3H{_n(ends[1])}M{_n(ends[3])} {_n(middle)}H{_n(ends[4])}m0 -3v6"
    drawn = [
        el("path", d=whisker, class_="whisker"),
        el(
            "rect",
            x=_n(ends[1]),
            y=_n(middle - half),
            width=_n(max(ends[3] - ends[1], 0.5)),
            height=_n(2 * half),
            class_="box",
            fill=colour,
        ),
        el("path", d=f"M{_n(ends[2])} {_n(middle - half)}v{_n(2 * half)}", class_="median"),
    ]
    shown = values if points else {name: v for name, v in values.items() if v < inside.min() or v > inside.max()}
    for name, value in shown.items():
        if math.isfinite(value):
            told = el("title", f"{name}: {value:.3f}")
            drawn.append(el("circle", told, cx=_n(frame.x(value)), cy=_n(middle), r=2, class_="point"))
    return drawn


def histogram(title: str, found: Mapping[str, np.ndarray], unit: str, caption: str | None = None) -> Html:
    """The share of pixels (%) by magnitude; the first is filled, the others are lines.

    Args:
      title: shown above it.
      found: magnitudes by name, at least one of them.
      unit: unit of the magnitudes.
      caption: text below.
    """
    largest = max(max(float(np.percentile(values, 99.5)) for values in found.values()), 1e-6)
    edges = np.linspace(0, largest, 31)
    shares = {}
    for name, values in found.items():
        counts, _ = np.histogram(np.minimum(values, largest), edges)
        shares[name] = 100 * counts / max(values.size, 1)
    frame = _Frame((0, largest), (0, max(share.max() for share in shares.values())))
    drawn, legend = [frame.axes(unit)], {}
    for k, (name, share) in enumerate(shares.items()):
        ink, class_ = _ink(k + 1, None), "curve fine dashed" if k > 1 else "curve fine" if k else "area"
        path = f"M{_n(frame.x(0))} {_n(frame.y(0))}"
        for edge, value in zip(edges[1:], share):
            path += f"V{_n(frame.y(value))}H{_n(frame.x(edge))}"
        drawn.append(el("path", d=f"{path}V{_n(frame.y(0))}", class_=class_, style=ink))
        legend[name] = (
            el("line", x1=0, x2=26, y1=6, y2=6, class_=class_, style=ink)
            if k
            else el("rect", x=1, y=1, width=20, height=10, class_=class_, style=ink)
        )
    text = f"{title}: " + ", ".join(f"{name} median {np.median(values):.2g}" for name, values in found.items())
    return _figure(title, HEIGHT, drawn, legend, text, caption)


def order(title: str, left: Mapping[str, float], right: Mapping[str, float], heads: tuple[str, str]) -> Html:
    """Two orders of the same names, the highest first, joined by lines, which are coloured from two ranks on."""
    places = [{name: k for k, name in enumerate(sorted(v, key=v.get, reverse=True))} for v in (left, right)]
    line, start = 21, 34
    height, ends = start + line * len(right) + 4, (112, 186)
    drawn = [
        el("text", heads[0], x=ends[0] - 8, y=14, text_anchor="end", class_="soft"),
        el("text", heads[1], x=ends[1] + 8, y=14, class_="soft"),
    ]
    for name in right:
        ys = [start + line * place[name] for place in places]
        moved = places[0][name] - places[1][name]
        ink = _ink(3 if moved > 1 else 2 if moved < -1 else 0, None)
        drawn.append(el("polyline", points=f"{ends[0]},{ys[0]} {ends[1]},{ys[1]}", class_="curve fine", style=ink))
        drawn += [el("circle", cx=x, cy=y, r=3, class_="dot", style=ink) for x, y in zip(ends, ys)]
        drawn.append(el("text", name, x=ends[0] - 8, y=ys[0] + 4, text_anchor="end", class_="ink", style=ink))
        drawn.append(el("text", f"{right[name]:.3f} {name}", x=ends[1] + 8, y=ys[1] + 4, class_="ink", style=ink))
    legend = {
        text: el("line", x1=0, x2=26, y1=6, y2=6, class_="curve", style=_ink(k, None))
        for k, text in ((3, "2 or more ranks higher"), (2, "2 or more lower"), (0, "in between"))
    }
    best = max(right, key=right.get)
    return _figure(title, height, drawn, legend, f"{title}: {heads[1]}, {best} is first")


class _Frame:
    """Axes, and the positions of values in them."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], left: float = LEFT, height: float = HEIGHT):
        self._x, self._y = _widened(*x), _widened(*y)
        self._left, self._height = left, height

    def x(self, value: float) -> float:
        low, high = self._x
        share = (min(max(value, low), high) - low) / (high - low)
        return self._left + share * (WIDTH - RIGHT - self._left)

    def y(self, value: float) -> float:
        low, high = self._y
        share = (min(max(value, low), high) - low) / (high - low)
        return self._height - BOTTOM - share * (self._height - BOTTOM - TOP)

    def axes(self, x_name: str, vertical: bool = True) -> list[Html]:
        bottom = self._height - BOTTOM
        drawn = []
        for value in ticks(*self._x):
            x = _n(self.x(value))
            start = TOP - 4 if not vertical else bottom
            drawn.append(el("line", x1=x, x2=x, y1=start, y2=bottom + 4, class_="axis"))
            anchor = "start" if self.x(value) < 12 else "end" if self.x(value) > WIDTH - 22 else "middle"
            drawn.append(el("text", f"{value:g}", x=x, y=bottom + 16, text_anchor=anchor, class_="soft"))
        drawn.append(el("text", x_name, x=WIDTH - RIGHT, y=bottom + 31, text_anchor="end", class_="soft"))
        if vertical:
            for value in ticks(*self._y):
                y = _n(self.y(value))
                drawn.append(el("line", x1=self._left, x2=WIDTH - RIGHT, y1=y, y2=y, class_="axis"))
                text = f"{value:g}".replace("-", "\N{MINUS SIGN}")
                drawn.append(
                    el("text", text, x=self._left - 6, y=_n(self.y(value) + 4), text_anchor="end", class_="soft")
                )
        return drawn


def ticks(low: float, high: float, number: int = 5) -> list[float]:
    """Round values from `low` to `high`, about `number` of them."""
    step = 10 ** math.floor(math.log10((high - low) / number))
    step *= next(k for k in (1, 2, 5, 10) if (high - low) / (k * step) <= number)
    return [round(k * step, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _widened(low, high):
    return (low, high) if high - low > 1e-9 * max(abs(low), abs(high), 1e-9) else (low - 0.5, high + 0.5)


def _figure(title, height, drawn, legend, text, caption=None):
    entries = [
        el("li", el("svg", sign, viewBox="0 0 26 12", aria_hidden="true"), name) for name, sign in legend.items()
    ]
    chart = el("svg", drawn, viewBox=f"0 0 {WIDTH} {_n(height)}", class_="chart", role="img", aria_label=text)
    below = el("figcaption", caption) if caption else None
    return el("figure", el("h3", title), chart, el("ul", entries, class_="legend"), below, class_="card")


def _ink(k: int, colour: str | None) -> str:
    """The style that gives a curve its colour on a light and on a dark page."""
    if colour is None:
        ink = INK[k % len(INK)]
        return f"--day:{ink};--night:{ink}"
    return f"--day:{_shaded(colour, '#ffffff')};--night:{_shaded(colour, '#14171b')}"


def _shaded(colour: str, page: str) -> str:
    """A colour, made darker or lighter until it stands out from a page."""
    hue, light, saturation = colorsys.rgb_to_hls(*_rgb(colour))
    step = -0.02 if _luminance(_rgb(page)) > 0.5 else 0.02
    while _contrast(colorsys.hls_to_rgb(hue, light, saturation), _rgb(page)) < CONTRAST and 0 < light < 1:
        light = min(max(light + step, 0), 1)
    return "#" + "".join(f"{round(255 * c):02x}" for c in colorsys.hls_to_rgb(hue, light, saturation))


def _rgb(colour):
    return tuple(int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))


def _luminance(rgb):
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one, other):
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
