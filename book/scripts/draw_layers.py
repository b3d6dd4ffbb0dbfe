"""Draw book/images/layers.svg and d4_field.svg: three group convolution layers, a field of D4.

Both are computed. Filters are turned copies of a base filter by the formulas of chapter 3, features are
the edges of a house by the direction that they face, and arrows follow the group's products.
"""

from pathlib import Path

from draw_three_cnns import COLORS, INK, MATHS, arrow, element, maps, text, tile, turned

IMAGES = Path(__file__).resolve().parents[1] / "images"
# Base filters: psi of the lifting and of the projection layer, psi[0] ... psi[3] of the group layer.
LIFTING = ((0.1, 0.9, 0.5), (0.2, 0.6, 0.0), (0.1, 0.0, 0.0))
PROJECTION = ((0.0, 0.8, 0.0), (0.3, 1.0, 0.1), (0.0, 0.2, 0.6))
GROUP = (
    ((0.9, 0.4, 0.0), (0.6, 0.2, 0.0), (0.1, 0.0, 0.0)),
    ((0.0, 0.0, 0.1), (0.9, 0.9, 0.3), (0.0, 0.1, 0.0)),
    ((0.1, 0.3, 0.8), (0.0, 0.5, 0.0), (0.0, 0.0, 0.4)),
    ((0.0, 0.7, 0.0), (0.0, 0.7, 0.2), (0.9, 0.0, 0.1)),
)
TILE, FILTER, ROW = 46, 33, 62  # sides of a map and of a filter, from channel to channel
TOP = 92


def quarter_turns(rows, k):
    """A filter after k quarter turns, counter-clockwise as displayed."""
    for _ in range(k % 4):
        rows = tuple(zip(*rows, strict=True))[::-1]
    return rows


def filter_at(x, y, rows, color):
    """Nine taps, the stronger the more colour."""
    side = FILTER / 3
    yield element("rect", x=f"{x:g}", y=f"{y:g}", width=FILTER, height=FILTER, fill="#fff")
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            box = {"x": f"{x + j * side:.1f}", "y": f"{y + i * side:.1f}"}
            yield element(
                "rect", **box, width=side, height=side, fill=color, fill_opacity=f"{value:g}"
            )
    frame = {"fill": "none", "stroke": INK, "stroke_width": 1}
    yield element("rect", x=f"{x:g}", y=f"{y:g}", width=FILTER, height=FILTER, **frame)


def middle(h):
    return TOP + h * ROW + TILE / 2


def columns():
    """Image, lifting, field, group layer, field, projection, image: from left to right."""
    centre = TOP + 1.5 * ROW
    answers = maps(0, 4, 1.0)
    yield from tile(16, centre, TILE, 0)
    for h in range(4):
        y = middle(h)
        yield from arrow(64, centre + TILE / 2, 114, y, "#999")
        yield from filter_at(118, y - FILTER / 2, quarter_turns(LIFTING, h), INK)
        yield from arrow(154, y, 184, y, "#999")
        yield from tile(188, y - TILE / 2, TILE, 0, COLORS[h], answers[h])
        for i in range(4):  # row h reads channel i by the filter psi[i - h], turned h times
            rows = quarter_turns(GROUP[(i - h) % 4], h)
            yield from filter_at(290 + 44 * i, y - FILTER / 2, rows, COLORS[(i - h) % 4])
        yield from arrow(466, y, 500, y, "#999")
        yield from tile(504, y - TILE / 2, TILE, 0, COLORS[h], answers[h])
        yield from arrow(553, y, 578, y, "#999")
        yield from filter_at(582, y - FILTER / 2, quarter_turns(PROJECTION, h), INK)
        yield from arrow(618, y, 676, centre + TILE / 2, "#999")
        yield text(262, y + 5, f"h′ = {h}", 12, font_style="italic", fill=COLORS[h])
        yield text(306 + 44 * h, TOP - 12, f"h = {h}", 12, font_style="italic", fill=COLORS[h])
    yield text(684, centre + TILE / 2 + 6, "+", 20)
    yield from tile(700, centre, TILE, 0)


def layers():
    width, height = 762, TOP + 4 * ROW + 56
    yield element("title", "Lifting, group and projection layer of C4")
    yield element("rect", width=width, height=height, rx=10, fill="#fff")
    yield from columns()
    heads = (
        (135, "lifting", "filter turned h times"),
        (378, "group", "turned h′ times and moved on by h′"),
        (599, "projection", "turned as its channel"),
    )
    for x, name, words in heads:
        yield text(x, 30, name, 15, font_weight="bold")
        yield text(x, 50, words, 12, fill="#444")
    low = TOP + 4 * ROW + 18
    yield text(39, low, "image", 12)
    yield text(211, low, "regular field", 12)
    yield text(378, low, "4 × 4 filters", 12)
    yield text(527, low, "regular field", 12)
    yield text(723, low, "image", 12)
    words = "one colour is one free filter: row h′ reads channel h by ψ[h − h′], turned h′ times"
    yield text(378, low + 24, words, 12, fill="#444")
    return width, height


def mirrored(shape):
    return [(-x, y) for x, y in shape]


def house(x, y, size, k, flip, color):
    """The house after a flip and k quarter turns, in a frame."""
    points = turned(0)
    points = mirrored(points) if flip else points
    for _ in range(k):
        points = [(b, -a) for a, b in points]  # a quarter turn counter-clockwise, y down
    place = " ".join(
        f"{x + size / 2 + size / 30 * a:.1f},{y + size / 2 + size / 30 * b:.1f}" for a, b in points
    )
    frame = {"rx": 5, "fill": "#fff", "stroke": color, "stroke_width": 2}
    yield element("rect", x=f"{x:g}", y=f"{y:g}", width=size, height=size, **frame)
    yield element("polygon", points=place, fill=color)


def d4_field():
    width, height, step, size = 700, 372, 130, 56
    left, upper, lower = 130, 92, 246
    yield element(
        "title", "The eight channels of a regular field of D4, and how the group moves them"
    )
    yield element("rect", width=width, height=height, rx=10, fill="#fff")
    names = ("e", "r", "r²", "r³")
    blue, orange = COLORS[0], COLORS[1]
    for k in range(4):
        x, to = left + k * step, left + (-k % 4) * step
        # m r^k = r^-k m: the mirroring exchanges channel k above with channel -k below.
        start, end = (x + size / 2, upper + size + 8), (to + size / 2, lower - 8)
        yield element(
            "path", d=f"M{start[0]:g} {start[1]:g} L{end[0]:g} {end[1]:g}",
            stroke=orange, stroke_width=2.4, stroke_dasharray="6 4",
        )  # fmt: skip
        yield from house(x, upper, size, k, False, INK)
        yield from house(x, lower, size, k, True, INK)
        yield text(x + size / 2, upper - 14, names[k], 16, **MATHS)
        below = "m" if k == 0 else names[k] + "m"
        yield text(x + size / 2, lower + size + 24, below, 16, **MATHS)
        if k < 3:
            for y in (upper, lower):
                ends = (x + size + 8, y + size / 2, x + step - 8, y + size / 2)
                yield from arrow(*ends, blue, stroke_width=2.4)
    for y in (upper, lower):  # and from the last back to the first
        high = y - 44 if y == upper else y + size + 44
        a, b = left + 3 * step + size + 10, left - 10
        path = f"M{a} {y + size / 2} h14 V{high} H{b - 14} V{y + size / 2} h8"
        yield element("path", d=path, fill="none", stroke=blue, stroke_width=2.4)
        yield from arrow(b - 10, y + size / 2, b + 3, y + size / 2, blue, stroke_width=2.4)
    yield text(
        width / 2,
        26,
        "a turn r moves each channel along a blue arrow, the mirroring m along a dashed line",
        13,
    )
    yield text(
        width / 2,
        height - 8,
        "each channel holds the filter as the element has moved it",
        12,
        fill="#444",
    )
    return width, height


def write(name, drawing):
    """Run a generator that returns its size, and write what it yields."""
    parts = []
    while True:
        try:
            parts.append(next(drawing))
        except StopIteration as end:
            width, height = end.value
            break
    frame = {"width": width, "height": height, "viewBox": f"0 0 {width} {height}", "fill": "#111"}
    font = {"font_family": "system-ui, Helvetica, Arial, sans-serif"}
    body = "\n".join(["", *parts, ""])
    svg = element("svg", body, xmlns="http://www.w3.org/2000/svg", **frame, **font)
    (IMAGES / name).write_text(svg + "\n", encoding="utf8")


def main():
    write("layers.svg", layers())
    write("d4_field.svg", d4_field())


if __name__ == "__main__":
    main()
