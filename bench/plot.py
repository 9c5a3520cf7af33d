"""Groups of horizontal bars on a logarithmic axis, as an SVG that says everything in its text.

Law: numbers and names in, a document out; nothing here knows what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ["#9aa0a6", "#1a73e8", "#f29900", "#188038", "#a142f4", "#d93025"]
LEFT, WIDTH, BAR, GAP, TOP = 330, 520, 14, 12, 64


def digits(number: float) -> str:
    """Three digits that count, never with an exponent."""
    return f"{number:.0f}" if number >= 100 else f"{number:#.3g}"


def bars(title: str, groups: Sequence[tuple[str, Mapping[str, float | None]]]) -> str:
    """Draw one bar for each number, from the least power of ten on.

    Args:
        title: Stands above.
        groups: A label, and a number for each name; None leaves the bar out. All groups have the
            same names.
    """
    known = [number for _, group in groups for number in group.values() if number]
    low = math.floor(min(map(math.log10, known), default=0))
    high = max(math.ceil(max(map(math.log10, known), default=1)), low + 1)

    def place(number: float) -> float:
        return LEFT + WIDTH * (math.log10(number) - low) / (high - low)

    names = list(groups[0][1]) if groups else []
    height = TOP + len(groups) * (len(names) * BAR + GAP) + GAP
    shapes = [f'<text x="10" y="20" font-size="14">{escape(title)}</text>']
    for column, name in enumerate(names):
        x, colour = 10 + 140 * column, COLOURS[column % len(COLOURS)]
        shapes.append(f'<rect x="{x}" y="30" width="10" height="10" fill="{colour}"/>')
        shapes.append(f'<text x="{x + 16}" y="39">{escape(name)}</text>')
    for power in range(low, high + 1):
        x = round(place(10.0**power))
        shapes.append(f'<path d="M{x} {TOP - 6}V{height}" stroke="#dadce0"/>')
        shapes.append(f'<text x="{x}" y="{TOP - 9}" text-anchor="middle">{10.0**power:g}</text>')
    y = TOP
    for label, group in groups:
        middle = y + len(names) * BAR // 2 + 4
        shapes.append(
            f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end">{escape(label)}</text>'
        )
        for name, colour in zip(names, COLOURS * len(names), strict=False):
            number = group[name]
            if number:
                end = place(number)
                shapes.append(
                    f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.0f}" height="{BAR - 3}" '
                    f'fill="{colour}"/>'
                    f'<text x="{end + 4:.0f}" y="{y + 10}">{digits(number)}</text>'
                )
            y += BAR
        y += GAP
    size = f'width="{LEFT + WIDTH + 60}" height="{height}"'
    style = 'font-family="sans-serif" font-size="11"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>'
    back = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([head, back, *shapes, "</svg>", ""])
