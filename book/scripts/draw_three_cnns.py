"""Draw book/images/three_cnns.svg: a common, an equivariant and a regularised CNN under a turn.

The picture is computed, not sketched. A channel answers to each edge of a shape by the direction
that the edge faces. In the equivariant network all channels have one answer, turned from channel to
channel; in the common one each has its own; the regularised one lies between. The errors below the
maps are computed from what is drawn.
"""

from math import atan2, cos, hypot, pi, sin
from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "images" / "three_cnns.svg"
INK, GREY, RED = "#333", "#e9e9e9", "#B00020"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito; one for each channel
# A house with a chimney, corners clockwise as displayed; (0, 0) is what it turns about, y points down.
HOUSE = ((-9, 10), (-9, -2), (0, -11), (4, -7), (4, -11), (7, -11), (7, -4), (9, -2), (9, 10))
UNITS = 30  # side of a tile in the shape's units: no turn of the house leaves it
TILE, STEP, LEFT, TOP = 42, 48, 118, 62
COLUMN, BLOCK, DROP = 214, 206, 92  # from network to network, turn to turn, f(x) to f(g x)
WIDTH, HEIGHT = 764, 470
MATHS = {"font_family": "Georgia, serif", "font_style": "italic"}
NETWORKS = {"common CNN": 0.0, "equivariant CNN": 1.0, "regularised CNN": 0.75}
# How a channel of the common network answers to an edge: strengths and directions of two waves.
OWN = ((0.4, 1.0, 0.7, 5.3), (0.6, 4.0, 0.6, 1.8), (0.5, 5.4, 0.8, 1.3), (0.6, 2.9, 0.9, 5.6))


def element(name, content=None, **attributes):
    text = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
    return f"<{name}{text}/>" if content is None else f"<{name}{text}>{content}</{name}>"


def text(x, y, words, size=13, anchor="middle", **style):
    return element(
        "text", words, x=f"{x:g}", y=f"{y:g}", font_size=size, text_anchor=anchor, **style
    )


def turned(angle):
    """Corners of the house, counter-clockwise by ``angle`` as displayed."""
    c, s = cos(angle), sin(angle)
    return [(c * x + s * y, c * y - s * x) for x, y in HOUSE]


def edges(points):
    """Start, end, length and direction of the outer side, counter-clockwise from the right."""
    for (x, y), (u, v) in zip(points, points[1:] + points[:1], strict=True):
        yield (x, y), (u, v), hypot(u - x, v - y), atan2(u - x, v - y)


def answer(direction, channel, channels, symmetry):
    """What a channel puts out at an edge facing ``direction``: positive and at most about 1."""
    # "Up" is channel 0 of the equivariant network; the others are its turned copies.
    strict = max(0.0, cos(direction - pi / 2 - 2 * pi * channel / channels)) ** 1.5
    a, alpha, b, beta = OWN[channel]
    own = max(0.0, a * cos(direction - alpha) + b * cos(2 * (direction - beta)))
    return symmetry * strict + (1 - symmetry) * own


def maps(angle, channels, symmetry):
    """For each channel the answers to all edges of the turned house."""
    faces = [face for *_, face in edges(turned(angle))]
    return [[answer(face, c, channels, symmetry) for face in faces] for c in range(channels)]


def errors(channels, symmetry):
    """For each channel of f(g x): squares of the difference to g f(x), and of g f(x) itself."""
    lengths = [length for *_, length, _ in edges(turned(0))]
    before, after = maps(0, channels, symmetry), maps(2 * pi / channels, channels, symmetry)
    for c in range(channels):
        expected = before[c - 1]  # turned, and moved on by one channel
        pairs = list(zip(lengths, expected, after[c], strict=True))
        yield sum(n * (a - b) ** 2 for n, a, b in pairs), sum(n * a**2 for n, a, _ in pairs)


def tile(x, y, size, angle, color=None, answers=()):
    """The house in a square; in colour, a feature map whose lines are as thick as the answers."""

    def place(point):
        return f"{x + size / 2 + size / UNITS * point[0]:.1f},{y + size / 2 + size / UNITS * point[1]:.1f}"

    points = turned(angle)
    frame = {"rx": 4, "fill": "#fff", "stroke": color or INK, "stroke_width": 1.6}
    yield element("rect", x=f"{x:g}", y=f"{y:g}", width=size, height=size, **frame)
    yield element("polygon", points=" ".join(map(place, points)), fill=GREY if color else "#555")
    for (start, end, *_), strength in zip(edges(points), answers, strict=False):
        if strength > 0.03:
            width = f"{4.5 * strength:.2f}"
            line = {"stroke": color, "stroke_width": width, "stroke_linecap": "round"}
            yield element("path", d=f"M{place(start)} L{place(end)}", **line)


def arrow(x0, y0, x1, y1, color=INK, **style):
    """A line with a head; the head is drawn, as markers would need a definition for each colour."""
    length = hypot(x1 - x0, y1 - y0)
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    bx, by = x1 - 6 * ux, y1 - 6 * uy
    line = {"stroke": color, "stroke_width": 1.6, **style}
    yield element("path", d=f"M{x0:.1f} {y0:.1f} L{bx:.1f} {by:.1f}", **line)
    tip = f"{x1:.1f},{y1:.1f} {bx - 3.2 * uy:.1f},{by + 3.2 * ux:.1f} {bx + 3.2 * uy:.1f},{by - 3.2 * ux:.1f}"
    yield element("polygon", points=tip, fill=color)


def network(left, top, channels, symmetry):
    """Feature maps of the house and of the turned house, and how they agree."""
    angle, shift = 2 * pi / channels, (4 - channels) * STEP / 2
    before, after = maps(0, channels, symmetry), maps(angle, channels, symmetry)
    found = list(errors(channels, symmetry))
    for c in range(channels):
        x, x_to = left + shift + c * STEP, left + shift + (c + 1) % channels * STEP
        yield from tile(x, top, TILE, 0, COLORS[c], before[c])
        yield from tile(x, top + DROP, TILE, angle, COLORS[c], after[c])
        if symmetry:
            style = {} if symmetry == 1 else {"stroke_dasharray": "4 3"}
            ends = (x + TILE / 2, top + TILE + 4, x_to + TILE / 2, top + DROP - 4)
            yield from arrow(*ends, COLORS[c], **style)
        wrong, power = found[c]
        sign = "=" if wrong < 1e-12 * power else "≈" if wrong < 0.25 * power else "≠"
        ink = RED if sign == "≠" else INK
        yield text(x + TILE / 2, top + DROP + TILE + 18, sign, 18, fill=ink, font_weight="bold")
    total = sum(wrong for wrong, _ in found) / sum(power for _, power in found)
    middle = left + 2 * STEP - (STEP - TILE) / 2
    yield text(middle, top + DROP + TILE + 36, f"error {abs(total):.2f}", 12)


def block(top, channels):
    """One turn: the house, the turned house, and what three networks make of them."""
    degrees = 360 // channels
    yield from tile(28, top - 4, 50, 0)
    yield text(92, top + 26, "x", 16, **MATHS)
    yield from arrow(53, top + 52, 53, top + DROP - 8)
    yield text(60, top + 70, f"{degrees}°", 13, "start")
    yield from tile(28, top + DROP - 4, 50, 2 * pi / channels)
    yield text(94, top + DROP + 26, "g x", 16, **MATHS)
    for i, symmetry in enumerate(NETWORKS.values()):
        yield from network(LEFT + i * COLUMN, top, channels, symmetry)


def draw():
    yield element(
        "title", "Features of a common, an equivariant and a regularised CNN under a turn"
    )
    yield element("rect", width=WIDTH, height=HEIGHT, rx=10, fill="#fff")
    for i, name in enumerate(NETWORKS):
        middle = LEFT + i * COLUMN + 2 * STEP - (STEP - TILE) / 2
        yield text(middle, 26, name, 15, font_weight="bold")
        words = ("unrelated maps", "turned and moved on: exactly", "turned and moved on: nearly")[i]
        yield text(middle, 45, words, 12, fill="#444")
    yield from block(TOP, 3)
    yield element("path", d=f"M20 {TOP + BLOCK - 14} H{WIDTH - 20}", stroke="#ccc")
    yield from block(TOP + BLOCK, 4)


def main():
    frame = {"width": WIDTH, "height": HEIGHT, "viewBox": f"0 0 {WIDTH} {HEIGHT}", "fill": "#111"}
    font = {"font_family": "system-ui, Helvetica, Arial, sans-serif"}
    body = "\n".join(["", *draw(), ""])
    svg = element("svg", body, xmlns="http://www.w3.org/2000/svg", **frame, **font)
    OUT.write_text(svg + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
