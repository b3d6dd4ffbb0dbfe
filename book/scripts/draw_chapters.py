"""Draw book/images/chapters.svg: the chapters, and which of them needs which.

A box is a chapter that exists or is planned; an arrow leads from what one should have read to what builds on it.
"""

from draw_layers import write
from draw_three_cnns import COLORS, INK, arrow, element, text

BLUE, ORANGE, GREEN, PINK = COLORS
BOX, HIGH = 136, 46
# number -> (name in two lines, column, row)
CHAPTERS = {
    "1": ("groups", "on images", 0, 0),
    "2": ("convolution is", "all there is", 1, 0),
    "3": ("group", "convolution", 2, 0),
    "4": ("the grid", "fights back", 3, 0),
    "5": ("steerable", "layers: escnn", 2, 1),
    "6": ("Fourier", "filters", 3, 1),
    "7": ("what strictness", "costs", 4, 1),
    "8": ("augmentation", "is a penalty", 0, 2),
    "9": ("EQ-Reg", "", 1, 2),
    "10": ("the weight-", "space view", 2, 2),
    "11": ("how much", "symmetry? · 11b", 3, 2),
    "12": ("measuring", "equivariance", 4, 2),
    "13": ("rain", "and unfolded", 0, 3),
    "14": ("metal artefacts", "and unfolded", 1, 3),
    "15": ("inpainting", "photon noise", 2, 3),
    "16": ("classification", "", 3, 3),
    "17": ("all methods,", "all tasks", 4, 3),
    "18": ("attach it to", "your model", 1, 4),
    "19": ("GPUs, half", "precision", 2, 4),
    "20": ("design notes,", "open questions", 3, 4),
}
PARTS = (
    "I  Symmetry and convolution",
    "II  Strict",
    "III  Soft",
    "IV  Restoration",
    "V  In your own code",
)
TINTS = ("#e8f1f8", "#fdeee3", "#e3f4ee", "#f8edf3", "#f0f0f0")
NEEDS = (
    ("1", "2"), ("2", "3"), ("3", "4"), ("3", "5"), ("5", "6"), ("4", "6"), ("6", "7"), ("8", "9"), ("9", "10"),
    ("10", "11"), ("11", "12"), ("13", "14"), ("14", "15"), ("15", "16"), ("16", "17"), ("18", "19"),
)  # fmt: skip
LEFT, TOP, STEP, ROW, WIDTH = 20, 74, 148, 100, 768


def corner(number):
    *_, column, row = CHAPTERS[number]
    return LEFT + column * STEP, TOP + row * ROW


def chapter(number):
    first, second, _, row = CHAPTERS[number]
    x, y = corner(number)
    yield element("rect", x=x, y=y, width=BOX, height=HIGH, rx=6, fill=TINTS[row], stroke="#999")
    yield text(x + 8, y + 19, number, 15, "start", font_weight="bold")
    yield text(x + 32, y + (19 if second else 27), first, 12, "start")
    yield text(x + 32, y + 36, second, 12, "start")


def need(start, end):
    """Along a row, or down from one row to the next."""
    (a, b), (c, d) = corner(start), corner(end)
    if b == d:
        yield from arrow(a + BOX, b + HIGH / 2, c - 2, d + HIGH / 2, "#777")
    else:
        yield from arrow(a + BOX / 2, b + HIGH, c + BOX / 2, d - 2, "#777")


def path(numbers, color, shift):
    """A reader's way through the boxes, drawn below them."""
    points = [(corner(n)[0] + BOX / 2 + shift, corner(n)[1] + HIGH / 2 + shift) for n in numbers]
    line = " L".join(f"{x:g} {y:g}" for x, y in points)
    style = {"stroke_width": 9, "stroke_opacity": 0.45, "stroke_linejoin": "round"}
    return element("path", d="M" + line, fill="none", stroke=color, stroke_linecap="round", **style)


def drawing():
    height = TOP + 5 * ROW + 56
    yield element("title", "Map of the chapters and three ways through them")
    yield element("rect", width=WIDTH, height=height, rx=10, fill="#fff")
    yield text(
        LEFT, 30, "Thin arrows: what builds on what. Broad lines: three ways to read.", 13, "start"
    )
    ways = (
        ("a student", ("1", "3", "8", "9", "11"), BLUE, -5),
        ("a practitioner", ("9", "18", "10", "11", "17", "19"), ORANGE, 3),
        ("a mathematician", ("2", "4", "7", "11", "9", "10", "12"), GREEN, 10),
    )
    for i, (name, numbers, color, shift) in enumerate(ways):
        yield path(numbers, color, shift)
        y = TOP + 5 * ROW - 6 + 24 * i
        x = LEFT + 10
        line = {
            "stroke": color,
            "stroke_width": 9,
            "stroke_opacity": 0.45,
            "stroke_linecap": "round",
        }
        yield element("path", d=f"M{x} {y - 4} h30", **line)
        yield text(x + 44, y, f"{name}: {' · '.join(numbers)}", 12, "start")
    for i, name in enumerate(PARTS):
        yield text(LEFT, TOP + i * ROW - 8, name, 13, "start", font_weight="bold", fill=INK)
    for pair in NEEDS:
        yield from need(*pair)
    for number in CHAPTERS:
        yield from chapter(number)
    return WIDTH, height


if __name__ == "__main__":
    write("chapters.svg", drawing())
