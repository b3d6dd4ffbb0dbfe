"""Draw book/images/weight_space.svg: where strict, soft and augmented training end.

Two directions of weight space: along the equivariant weights V, and off them. The loss is quadratic, and
all points and curves are computed from it: its minimum, its minimum on V (strict), the minima with a
penalty of growing strength (soft), and the minimum of its mean with its mirror image (augmentation).
"""

from math import cos, pi, sin, sqrt

from draw_layers import write
from draw_three_cnns import COLORS, INK, MATHS, element
from draw_three_cnns import text as bare_text

# Loss: (1/2) (w - W)^T H (w - W); the group acts by the sign of the second coordinate.
H = ((1.0, 0.55), (0.55, 1.1))
W = (2.1, 1.35)
SCALE, WIDTH, HEIGHT, LEFT, AXIS = 105, 720, 420, 90, 300
BLUE, ORANGE, GREEN, PINK = COLORS


def text(*arguments, **style):
    """Words with a white rim, which stay readable across lines."""
    rim = {"stroke": "#fff", "stroke_width": 4, "paint_order": "stroke", "stroke_linejoin": "round"}
    return bare_text(*arguments, **rim, **style)


def place(point):
    return LEFT + SCALE * point[0], AXIS - SCALE * point[1]


def soft(strength):
    """Minimum of the loss plus (strength / 2) times the square of the distance from V."""
    (a, b), (_, d) = H
    right = (a * W[0] + b * W[1], b * W[0] + d * W[1])
    d += strength
    determinant = a * d - b * b
    return (d * right[0] - b * right[1]) / determinant, (a * right[1] - b * right[0]) / determinant


def augmented():
    """Minimum of the mean of the loss and its mirror image: their mixed terms cancel."""
    (a, b), _ = H
    return (a * W[0] + b * W[1]) / a, 0.0


def contour(centre, matrix, level):
    """Closed path on which the quadratic form around the centre has a value."""
    (a, b), (_, d) = matrix
    points = []
    for i in range(73):
        u, v = cos(2 * pi * i / 72), sin(2 * pi * i / 72)
        radius = sqrt(2 * level / (a * u * u + 2 * b * u * v + d * v * v))
        x, y = place((centre[0] + radius * u, centre[1] + radius * v))
        points.append(f"{x:.1f} {y:.1f}")
    return "M" + " L".join(points) + " Z"


def dot(point, color, radius=6):
    x, y = place(point)
    return element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=radius, fill=color)


def drawing():
    yield element("title", "Strict, soft and augmented training in weight space")
    yield element("rect", width=WIDTH, height=HEIGHT, rx=10, fill="#fff")
    mirror = ((H[0][0], 0.0), (0.0, H[1][1]))
    for level in (0.08, 0.3, 0.65):
        thin = {"fill": "none", "stroke_width": 1.2}
        yield element("path", d=contour(W, H, level), stroke="#777", **thin)
        dashed = {**thin, "stroke_dasharray": "3 4"}
        yield element("path", d=contour(augmented(), mirror, level), stroke=GREEN, **dashed)
    yield element("path", d=f"M40 {AXIS} H{WIDTH - 24}", stroke=BLUE, stroke_width=3)
    yield text(456, AXIS - 10, "V: all that a strict network has", 13, "start", fill=BLUE)
    strict = soft(1e9)
    assert abs(strict[0] - augmented()[0]) < 1e-6 and abs(strict[1]) < 1e-6
    path = "M" + " L".join(
        "{:.1f} {:.1f}".format(*place(soft(s / (1 - s)))) for s in [i / 60 for i in range(60)]
    )
    yield element(
        "path",
        d=path + " L{:.1f} {:.1f}".format(*place(strict)),
        fill="none",
        stroke=ORANGE,
        stroke_width=3,
    )
    x, y = place(W)
    yield dot(W, INK)
    yield text(x + 12, y - 8, "plain: minimum of the loss", 13, "start")
    for strength in (0.4, 1.5, 6.0):
        yield dot(soft(strength), ORANGE, 4.5)
    x, y = place(soft(0.4))
    yield text(x + 14, y + 4, "soft: more penalty, nearer to V", 13, "start", fill=ORANGE)
    x, y = place(strict)
    yield dot(strict, BLUE, 7)
    yield text(
        x + 2,
        y + 26,
        "strict; and augmentation with all turns, if the loss is convex",
        13,
        fill=INK,
    )
    yield text(x + 2, y + 46, "(dashed: the loss averaged with its mirror image)", 12, fill=GREEN)
    yield element("path", d=f"M{WIDTH - 70} {AXIS - 40} V60", stroke=INK, stroke_width=1.2)
    yield text(WIDTH - 62, 70, "off V", 13, "start", **MATHS)
    yield text(
        WIDTH / 2,
        28,
        "Two directions of weight space, one loss, four ways to train",
        14,
        font_weight="bold",
    )
    return WIDTH, HEIGHT


if __name__ == "__main__":
    write("weight_space.svg", drawing())
