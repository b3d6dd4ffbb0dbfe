"""Draw book/images/eqreg.svg: what EQ-Reg compares.

The picture is computed, not sketched: channel ``g`` marks the edges of a shape that face ``g``
quarter turns from "up", so the law f(g x)[g] = rotate(f(x)[g - 1]) can be checked by eye.
"""

from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "images" / "eqreg.svg"
INK, GREY, RED = "#333", "#e9e9e9", "#B00020"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito; one for each channel of f(x)
SHAPE = ((-8, -9), (7, -9), (7, -4), (-3, -4), (-3, 0), (4, 0), (4, 5), (-3, 5), (-3, 10), (-8, 10))
UNITS = 29  # side of a tile in the shape's units
WIDTH, HEIGHT, TILE, GAP, LEFT = 720, 392, 54, 16, 252
TOP, MIDDLE, BOTTOM = 56, 176, 296  # rows of feature maps: f(x), g f(x), f(g x)
MATHS = {"font_family": "Georgia, serif", "font_style": "italic"}


def element(name, content=None, **attributes):
    text = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
    return f"<{name}{text}/>" if content is None else f"<{name}{text}>{content}</{name}>"


def turn(points, k):
    """Counter-clockwise quarter turns, as displayed (y points down)."""
    for _ in range(k % 4):
        points = [(y, -x) for x, y in points]
    return points


def edges(facing):
    """Edges of the shape whose outer side looks ``facing`` quarter turns from up."""
    # The corners go clockwise, so walking along an upper edge (facing up) is walking right.
    along = ((1, 0), (0, -1), (-1, 0), (0, 1))[facing]
    for start, end in zip(SHAPE, SHAPE[1:] + SHAPE[:1], strict=True):
        if tuple((b > a) - (b < a) for a, b in zip(start, end, strict=True)) == along:
            yield start, end


def tile(x, y, size, k, color=None, lines=()):
    """The shape turned ``k`` times in a square; in colour, a feature map that marks ``lines``."""

    def place(points):
        scale, half = size / UNITS, size / 2
        return " ".join(
            f"{x + half + scale * a:g},{y + half + scale * b:g}" for a, b in turn(points, k)
        )

    frame = {"rx": 4, "fill": "#fff", "stroke": color or INK, "stroke_width": 2}
    yield element("rect", x=x, y=y, width=size, height=size, **frame)
    yield element("polygon", points=place(SHAPE), fill=GREY if color else "#555")
    stroke = {"fill": "none", "stroke": color, "stroke_width": 3.5, "stroke_linecap": "round"}
    for line in lines:
        yield element("polyline", points=place(line), **stroke)


def text(x, y, words, size=14, anchor="middle", **style):
    return element("text", words, x=x, y=y, font_size=size, text_anchor=anchor, **style)


def head(color):
    """The definition of an arrow's head; SVG wants one for each colour."""
    box = {"viewBox": "0 0 8 8", "refX": 7, "refY": 4, "markerWidth": 6, "markerHeight": 6}
    tip = element("path", d="M0 0 L8 4 L0 8 z", fill=color)
    return element("marker", tip, id=f"head-{color[1:]}", orient="auto", **box)


def arrow(x0, y0, x1, y1, color=INK):
    end = f"url(#head-{color[1:]})"
    return element(
        "path", d=f"M{x0} {y0} L{x1} {y1}", stroke=color, stroke_width=1.9, marker_end=end
    )


def column(c):
    return LEFT + c * (TILE + GAP)


def network(y, k, name):
    """An image, the network, and the way to its features."""
    yield from tile(26, y - 8, 70, k)
    yield text(61, y + 80, name, 17, **MATHS)
    yield arrow(102, y + 27, 138, y + 27)
    box = {"width": 60, "height": 48, "rx": 8, "fill": "#f3f3f3"}
    yield element("rect", x=142, y=y + 3, stroke=INK, stroke_width=1.8, **box)
    yield text(172, y + 33, "f", 20, **MATHS)
    yield arrow(206, y + 27, LEFT - 8, y + 27)


def channel(c):
    """Channel ``c`` of f(x), where the turn takes it, and what the network finds there instead."""
    to = (c + 1) % 4
    x, x_to, color = column(c), column(to), COLORS[c]
    true = list(edges(c))
    # An ordinary network: one edge missed here, one invented there.
    found = {0: true[:1], 2: [*true, next(edges(1))]}.get(c, true)
    yield text(x + TILE / 2, TOP - 10, f"channel {c}", 12)
    yield from tile(x, TOP, TILE, 0, color, true)
    yield arrow(x + TILE / 2, TOP + TILE + 4, x_to + TILE / 2, MIDDLE - 5, color)
    yield from tile(x_to, MIDDLE, TILE, 1, color, true)
    yield from tile(x_to, BOTTOM, TILE, 1, color, found)
    sign, ink = ("=", INK) if found == true else ("≠", RED)
    height = (MIDDLE + BOTTOM + TILE) / 2 + 8
    yield text(x_to + TILE / 2, height, sign, 24, fill=ink, font_weight="bold")


def draw():
    yield element("title", "EQ-Reg compares f(g x) with g f(x)")
    yield element("defs", "".join(map(head, (INK, *COLORS))))
    yield element("rect", width=WIDTH, height=HEIGHT, rx=10, fill="#fff")

    yield from network(TOP, 0, "x")
    yield from network(BOTTOM, 1, "g x")
    yield arrow(61, TOP + 92, 61, BOTTOM - 16)
    yield text(72, 204, "turn by 90°", anchor="start")
    yield element("path", d=f"M172 {TOP + 57} V{BOTTOM - 3}", stroke="#777", stroke_dasharray="3 4")
    yield text(180, 236, "same", 12, "start")
    yield text(180, 251, "weights", 12, "start")

    for c in range(4):
        yield from channel(c)

    right = column(4) + 2
    yield text(right, TOP + 32, "f(x)", 17, "start", **MATHS)
    yield text(right, 140, "turn each map,", 13, "start")
    yield text(right, 157, "shift the channels", 13, "start")
    yield text(right, MIDDLE + 32, "g f(x)", 17, "start", **MATHS)
    yield text(right, 258, "the difference is", 13, "start")
    yield text(right, 275, "the penalty", 13, "start", font_weight="bold")
    yield text(right, BOTTOM + 32, "f(g x)", 17, "start", **MATHS)


def main():
    frame = {"width": WIDTH, "height": HEIGHT, "viewBox": f"0 0 {WIDTH} {HEIGHT}", "fill": "#111"}
    font = {"font_family": "system-ui, Helvetica, Arial, sans-serif"}
    body = "\n".join(["", *draw(), ""])
    svg = element("svg", body, xmlns="http://www.w3.org/2000/svg", **frame, **font)
    OUT.write_text(svg + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
