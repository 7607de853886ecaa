# SPDX-License-Identifier: Apache-2.0
"""Two kinds of plot as SVG text: lines over logarithmic axes, and bars."""

from __future__ import annotations

import math
from html import escape
from itertools import pairwise
from typing import Any

COLOURS = "#1b6ca8 #d1495b #66a182 #8d6a9f #edae49 #5b5f97 #2e8b8b #a0522d #7a7a7a #c06c84 #3a7d44".split()
OURS, LIMIT = "#000000", "#bbbbbb"


class Drawing:
    """Collects elements."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.size = width, height
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="Helvetica, Arial, sans-serif" font-size="12" role="img"><title>{escape(title)}</title>',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        ]
        self.text(12, 20, title, size=14, weight="bold")

    def text(
        self,
        x: float,
        y: float,
        text: str,
        anchor: str = "start",
        size: int = 12,
        weight: str = "normal",
        colour: str = "#222",
    ) -> None:
        style = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{colour}"'
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str = "#e4e4e4", width: float = 1) -> None:
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'
        )

    def bar(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}" fill="{colour}"/>'
        )

    def curve(self, points: list[tuple[float, float]], colour: str, width: float, dash: str = "") -> None:
        at = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>')
        if not dash:
            self.parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{width + 0.8}" fill="{colour}"/>' for x, y in points]

    def __str__(self) -> str:
        return "\n".join([*self.parts, "</svg>"]) + "\n"


def spread(places: list[float], gap: float, least: float) -> list[float]:
    """The places moved apart, so that text does not overlap, and down from the upper edge."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    for _ in range(200):
        for a, b in pairwise(order):
            lack = gap - (moved[b] - moved[a])
            if lack > 0:
                moved[a] -= lack / 2
                moved[b] += lack / 2
    return [place + max(0.0, least - min(moved)) for place in moved]


def lines(
    title: str, x_names: list[str], series: dict[str, list[float | None]], unit: str, colours: dict[str, str]
) -> str:
    """Curves over named places, seconds on a logarithmic axis; names at the right end."""
    width, height, left, right, top, bottom = 760, 430, 70, 150, 40, 40
    drawing = Drawing(width, height, title)
    values = [value for curve in series.values() for value in curve if value]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def x_of(i: int) -> float:
        return left + (width - left - right) * (i + 0.15) / (len(x_names) - 0.7)

    def y_of(value: float) -> float:
        return top + (height - top - bottom) * (high - math.log10(value)) / (high - low)

    for power in range(low, high + 1):
        drawing.line(left, y_of(10.0**power), width - right, y_of(10.0**power))
        drawing.text(left - 6, y_of(10.0**power) + 4, time_text(10.0**power), "end", colour="#555")
    for i, name in enumerate(x_names):
        drawing.text(x_of(i), height - bottom + 18, name, "middle", colour="#555")
    drawing.text((left + width - right) / 2, height - 6, unit, "middle", colour="#555")
    ends = []
    for name, curve in series.items():
        points = [(x_of(i), y_of(value)) for i, value in enumerate(curve) if value]
        drawing.curve(
            points, colours[name], 2.6 if colours[name] == OURS else 1.5, "5 4" if colours[name] == LIMIT else ""
        )
        ends.append(points[-1][1])
    for name, y in zip(series, spread(ends, 14, top)):
        drawing.text(
            width - right + 8, y + 4, name, colour=colours[name], weight="bold" if colours[name] == OURS else "normal"
        )
    return str(drawing)


def bars(title: str, rows: list[tuple[str, float, str]]) -> str:
    """Ratios on a logarithmic axis that begins at 1; those below 1 go to the left, in red."""
    left, right, top, step = 330, 130, 40, 22
    width, height = 760, top + step * len(rows) + 30
    drawing = Drawing(width, height, title)
    low = min(0.0, *(math.log2(ratio) for _, ratio, _ in rows))
    high = max(1.0, *(math.log2(ratio) for _, ratio, _ in rows))

    def x_of(ratio: float) -> float:
        return left + (width - left - right) * (math.log2(ratio) - low) / (high - low)

    for power in range(math.ceil(low), math.floor(high) + 1):
        x = x_of(2.0**power)
        drawing.line(x, top - 6, x, height - 26, "#999999" if power == 0 else "#e4e4e4")
        drawing.text(x, height - 12, f"{2.0**power:g}×", "middle", colour="#555")
    for i, (name, ratio, peer) in enumerate(rows):
        y = top + step * i
        drawing.text(left - 60 if low < 0 else left - 8, y + 14, name, "end")
        a, b = sorted((x_of(1.0), x_of(ratio)))
        drawing.bar(a, y + 2, b - a, step - 6, COLOURS[0] if ratio >= 1 else COLOURS[1])
        drawing.text(b + 5, y + 14, f"{ratio:.3g}×  {peer}", colour="#555", size=11)
    return str(drawing)


def palette(names: list[str], ours: str, limit: str) -> dict[str, Any]:
    """A colour for each curve."""
    others = [name for name in names if name not in (ours, limit)]
    return {ours: OURS, limit: LIMIT, **{name: COLOURS[i % len(COLOURS)] for i, name in enumerate(others)}}


def time_text(seconds: float) -> str:
    """A power of ten with its unit."""
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6), ("ns", 1e9)):
        if seconds * factor >= 0.999:
            return f"{seconds * factor:.0f} {unit}"
    return f"{seconds * 1e9:g} ns"
