"""Figures and sliders: valid HTML with alt text, the same bytes each time, pyplot left clean."""

from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

from eqreg import viz
from eqreg.viz import _slider

VOID = {"img", "input", "br", "source"}


class Page(HTMLParser):
    """Collects the tags of a piece of HTML and fails on tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, f"unclosed {self.open}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"attribute twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def draw(value=0.0):
    figure, ax = viz.subplots(size=(2, 1.5))
    ax.plot([0, 1], [0, float(value)])
    return figure


def slider(**options):
    arguments = {"label": "Height", "alt": "a line up to {value}", **options}
    return viz.explore(draw, [0.0, 0.5, 1.0], **arguments)


# --- show -------------------------------------------------------------------------------------


def test_show_is_a_figure_with_alt_and_caption():
    picture = viz.show(draw(), alt='rises < 1 & "steady"', caption="It rises & rises.")
    page = Page(picture._repr_html_())
    (image,) = page.all("img")
    assert image["alt"] == 'rises < 1 & "steady"'
    assert image["src"].startswith("data:image/webp;base64,")
    (frame,) = page.all("figure")
    assert frame["class"] == "eqreg"  # the dark theme's exception, book/static/eqreg.css
    assert "max-width:192px" in frame["style"]
    assert page.text == "It rises & rises."
    assert repr(picture) == "Picture('rises < 1 & \"steady\"')"


def test_show_takes_png_bytes_and_arrays_and_a_width():
    pixels = torch.rand(1, 3, 8, 12)
    html = viz.show(pixels, alt="noise").html
    assert "max-width:12px" in html and "<figcaption" not in html
    png = viz._raster.to_png(pixels, dpi=100)
    assert viz.show(png, alt="noise").html == html
    assert "max-width:300px" in viz.show(png, alt="noise", width=300).html


def test_show_is_deterministic():
    assert viz.show(draw(), alt="a line").html == viz.show(draw(), alt="a line").html


def test_show_closes_a_pyplot_figure_and_settings_stay():
    import matplotlib as mpl
    from matplotlib import pyplot

    before = dict(mpl.rcParams)
    figure = pyplot.figure()
    viz.show(figure, alt="empty axes")
    slider()
    assert not pyplot.get_fignums()
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("alt", ["", "  ", None])
def test_show_wants_alternative_text(alt):
    with pytest.raises(ValueError, match="expected alt as a non-empty string, got"):
        viz.show(draw(), alt=alt)


@pytest.mark.parametrize(
    ("picture", "got"), [("file.png", "got str"), (b"JFIF", "got bytes starting b'JFIF'")]
)
def test_show_rejects_what_is_no_picture(picture, got):
    with pytest.raises(TypeError, match=got):
        viz.show(picture, alt="x")


def test_an_array_that_is_no_image_is_named_by_its_shape():
    with pytest.raises(ValueError, match=r"got shape \(2, 5, 8, 8\)"):
        viz.show(torch.rand(2, 5, 8, 8), alt="x")


# --- grid -------------------------------------------------------------------------------------


def test_grid_shows_equal_values_equally():
    dark, bright = np.full((4, 4), 0.2), np.full((4, 4), 0.9)
    figure = viz.grid([dark, bright, dark], ["a", "b", "c"], columns=2)
    shown = [ax.images[0] for ax in figure.axes if ax.images]
    assert len(shown) == 3 and len(figure.axes) == 4
    assert {image.get_clim() for image in shown} == {(0.0, 1.0)}
    figure = viz.grid([dark, bright], limits=None)
    assert {ax.images[0].get_clim() for ax in figure.axes} == {(0.2, 0.9)}


@pytest.mark.parametrize(
    "shape", [(6, 5), (6, 5, 3), (3, 6, 5), (1, 6, 5), (1, 3, 6, 5), (1, 1, 6, 5)]
)
def test_grid_reads_the_usual_layouts(shape):
    (ax,) = viz.grid([torch.rand(shape)]).axes
    assert ax.images[0].get_array().shape[:2] == (6, 5)


def test_grid_errors():
    with pytest.raises(ValueError, match="at least one image, got none"):
        viz.grid([])
    with pytest.raises(ValueError, match="2 images but 1 titles"):
        viz.grid([np.zeros((2, 2))] * 2, ["a"])


# --- explore ----------------------------------------------------------------------------------


def test_explore_is_valid_html_without_scripts_or_ids():
    page = Page(slider(caption="Higher is higher.", start=1)._repr_html_())
    images = page.all("img")
    assert [image["alt"] for image in images] == [f"a line up to {v}" for v in ("0", "0.5", "1")]
    frames = [tags for tags in page.all("div") if "frame" in tags["class"]]
    assert [frame["data-value"] for frame in frames] == ["0", "0.5", "1"]
    assert [frame["style"] for frame in frames] == ["display:none", "display:block", "display:none"]
    (control,) = page.all("input")
    assert (control["type"], control["min"], control["max"], control["value"]) == (
        "range",
        "0",
        "2",
        "1",
    )
    assert control["aria-valuetext"] == "0.5"
    without = page.text[page.text.index("Height0.5") + 9 : page.text.index("Higher is higher.")]
    assert "This slider needs JavaScript" in without and "at 0, 0.5, 1 (Height)" in without
    # No id to clash and no script to lose: the same slider may stand on a page twice.
    assert not page.all("script") and not any("id" in attrs for _, attrs in page.tags)


def test_explore_labels_its_control():
    names = [name for name, _ in Page(slider().html).tags]
    label = names.index("label")
    assert names[label : label + 5] == ["label", "span", "span", "input", "output"]


def test_explore_folds_what_a_reader_should_guess_first():
    html = slider(caption="A line.", answer="It rises & <stays>.").html
    page = Page(html)
    names = [name for name, _ in page.tags]
    assert names.index("figcaption") < names.index("details") < names.index("summary")
    assert page.all("details") == [{"style": "margin-top:.4em"}]  # not open
    assert page.text.endswith("A line.AnswerIt rises & <stays>.")
    assert not Page(slider(caption="A line.").html).all("details")
    assert "It rises." in Page(slider(answer="It rises.").html).text  # without a caption too


def test_explore_is_deterministic_and_small():
    first, second = slider(), slider()
    assert first.html == second.html
    assert len(first.html) < 30_000
    assert repr(first) == "Slider('Height', 0 to 1, 3 frames)"


def test_alt_may_be_a_function():
    html = slider(alt=lambda v: f"half of {2 * v:g}").html
    assert [image["alt"] for image in Page(html).all("img")] == [
        "half of 0",
        "half of 1",
        "half of 2",
    ]


def test_explore_takes_arrays_and_any_values():
    html = viz.explore(
        lambda word: np.full((4, 4), len(word) / 9),
        ["one", "three"],
        label="Word",
        alt="grey for {value}",
    ).html
    frames = [tags for tags in Page(html).all("div") if "frame" in tags["class"]]
    assert [frame["data-value"] for frame in frames] == ["one", "three"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alt": ""}, "expected alt as a non-empty string, got ''"),
        ({"alt": lambda value: None}, "expected alt as a non-empty string, got None"),
        ({"label": " "}, "a slider needs a label"),
        ({"start": 3}, "start must be an index of the 3 values, got 3"),
    ],
)
def test_explore_says_what_is_missing(options, message):
    with pytest.raises(ValueError, match=message):
        slider(**options)


def test_explore_without_values():
    with pytest.raises(ValueError, match="at least one value to draw, got none"):
        viz.explore(draw, [], label="x", alt="x")


def test_explore_names_a_draw_that_returns_nothing():
    with pytest.raises(TypeError, match="got NoneType for value 2"):
        viz.explore(lambda value: None, [2], label="x", alt="x")


def test_explore_warns_of_a_heavy_page(monkeypatch):
    monkeypatch.setattr(_slider, "_TOO_LARGE", 1000)
    with pytest.warns(UserWarning, match=r"adds 0\.0 MB to the page \(3 frames\)"):
        slider()


def test_quality_shrinks_until_the_slider_fits(monkeypatch):
    noise = np.random.default_rng(0).random((64, 64))
    full = viz.explore(lambda _: noise, [0], label="x", alt="x")
    monkeypatch.setattr(_slider, "_BUDGET", len(full.html) - 1)
    assert len(viz.explore(lambda _: noise, [0], label="x", alt="x").html) < len(full.html)


# --- on a phone, in the dark, without scripts -------------------------------------------------


def sizes(html):
    """Width and height of the picture for a desk and for a phone, in pixels."""
    page = Page(html)
    return [
        [int(tags[k]) for k in ("width", "height")]
        for t in ("img", "source")
        for tags in page.all(t)
    ]


def test_plots_stand_below_each_other_on_a_phone_and_the_figure_is_left_as_it_was():
    figure, axes = viz.subplots(1, 2, size=(7.2, 3.0), sharey=True)
    axes[0].set_title("a title far too long for a panel that is as wide as a phone and no wider")
    axes[1].text(0.5, 0.5, "small", fontsize=5)
    html = viz.show(figure, alt="two plots").html
    (wide, high), (narrow, tall) = sizes(html)
    assert wide == pytest.approx(7.2 * 168, abs=2) and narrow == pytest.approx(3.55 * 168, abs=2)
    assert tall > 1.9 * high
    assert tuple(figure.get_size_inches()) == (7.2, 3.0)
    assert [ax.get_subplotspec().colspan.start for ax in axes] == [0, 1]
    assert "\n" not in axes[0].get_title() and axes[1].texts[0].get_fontsize() == 5
    assert not axes[1].yaxis.get_tick_params()["labelleft"]


def test_on_a_phone_text_is_at_least_nine_pixels_and_titles_break():
    figure, axes = viz.subplots(1, 2, size=(7.2, 3.0))
    axes[0].set_title("a title far too long for a panel that is as wide as a phone and no wider")
    axes[1].text(0.5, 0.5, "small", fontsize=5)
    with viz._narrow.narrowed(figure) as another:
        assert another
        assert "\n" in axes[0].get_title()
        assert axes[1].texts[0].get_fontsize() * 96 / 72 >= 9


def test_pictures_stand_two_in_a_row_on_a_phone_and_a_row_starts_a_line():
    figure = viz.grid([np.zeros((8, 8))] * 6, list("abcdef"), columns=3, cell=1.9)
    with viz._narrow.narrowed(figure):
        places = [
            (s.rowspan.start, s.colspan.start) for s in (ax.get_subplotspec() for ax in figure.axes)
        ]
    assert places == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (3, 0)]


def test_names_below_bars_turn_where_they_would_overlap():
    figure, ax = viz.subplots(size=(7.0, 3.0))
    ax.set_xticks(range(8), ["a long name"] * 8)
    with viz._narrow.narrowed(figure):
        assert {label.get_rotation() for label in ax.get_xticklabels()} == {90.0}
    assert {label.get_rotation() for label in ax.get_xticklabels()} == {0.0}


def test_a_legend_that_is_long_or_wide_goes_below_its_plot_on_a_phone():
    figure, ax = viz.subplots(size=(6.4, 2.4))
    for i in range(4):
        ax.plot(0.1, -i, "o", label=f"method number {i}")
        ax.annotate("gain", (1.01, -i), xycoords=("axes fraction", "data"))
    ax.set_yticks([-i for i in range(4)], ["EQ-Reg minus augmentation"] * 4)
    legend = ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=3)
    figure.draw_without_rendering()
    before = legend.get_window_extent().bounds
    with viz._narrow.narrowed(figure):
        figure.draw_without_rendering()
        box = legend.get_window_extent()
        assert ax.get_position().width > 0.25
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width
        assert box.y1 <= ax.xaxis.get_tightbbox().y0
    figure.draw_without_rendering()
    assert legend.get_window_extent().bounds == pytest.approx(before, abs=1)
    assert {t.get_text() for t in ax.get_yticklabels()} == {"EQ-Reg minus augmentation"}


@pytest.mark.parametrize(("style", "covered"), [("-", True), ("none", False), ("o", True)])
def test_a_legend_that_would_lie_on_a_curve_goes_below_its_plot_on_a_phone(style, covered):
    figure, ax = viz.subplots(size=(6.0, 3.0))
    look = {"marker": "o", "ls": "none"} if style == "o" else {"ls": style}
    ax.plot([0.02, 0.97, 1.0], [0.0, 0.97, 1.0], label="a curve through the corner", **look)
    legend = ax.legend(loc="upper right")
    figure.draw_without_rendering()
    before = legend.get_window_extent().bounds
    with viz._narrow.narrowed(figure):
        assert bool(legend.get_window_extent().y1 < ax.bbox.y0) == covered
    figure.draw_without_rendering()
    assert legend.get_window_extent().bounds == pytest.approx(before, abs=1)


def test_plots_that_share_their_names_shrink_them_alike_on_a_phone():
    figure, axes = viz.subplots(1, 2, size=(8.6, 2.4), sharey=True)
    names = [
        "augmentation, 4 patches",
        "strict, equal width, 4 patches",
        "strict, equal parameters, 64 patches",
    ]
    for ax in axes:
        ax.errorbar(range(3), range(3), xerr=1, fmt="o")
    axes[0].set_yticks(range(3), names)
    with viz._narrow.narrowed(figure):
        figure.draw_without_rendering()
        for ax in axes:
            boxes = [t.get_window_extent() for t in ax.get_yticklabels()]
            assert all(a.y1 <= b.y0 + 1 for a, b in zip(boxes, boxes[1:], strict=False))
        sizes = {t.get_fontsize() for ax in axes for t in ax.get_yticklabels()}
        assert len(sizes) == 1 and min(sizes) < 8
    left = axes[0].get_yticklabels()
    assert [t.get_text() for t in left] == names and min(t.get_fontsize() for t in left) > 8
    assert not axes[1].get_yticklabels()  # they stand on the left alone


def test_ticks_by_name_that_still_overlap_when_turned_are_thinned():
    figure, ax = viz.subplots(size=(7.0, 3.0))
    ax.set_xticks(range(60), ["name"] * 60)
    with viz._narrow.narrowed(figure):
        boxes = [t.get_window_extent() for t in ax.get_xticklabels() if t.get_visible()]
        assert 5 < len(boxes) < 60
        assert all(a.x1 <= b.x0 for a, b in zip(boxes, boxes[1:], strict=False))
    assert all(t.get_visible() for t in ax.get_xticklabels())


def test_what_fits_a_phone_has_no_second_form():
    assert "<source" not in viz.show(draw(), alt="a line").html
    assert "<source" not in viz.show(np.zeros((9, 900)), alt="a strip").html


def test_a_figure_says_where_its_photographs_are():
    assert "data-photos" not in viz.show(draw(), alt="a line").html
    (whole,) = Page(viz.show(np.zeros((8, 8)), alt="black").html).all("span")
    assert whole["data-photos"] == "all"
    figure, axes = viz.subplots(1, 2, size=(4, 2))
    axes[1].imshow(np.zeros((8, 8)))
    (span,) = Page(viz.show(figure, alt="one of two").html).all("span")
    corners = [corner.split() for corner in span["data-photos"].split(",")]
    left, right = (sorted(float(x[:-1]) for x, _ in corners)[i] for i in (0, -1))
    assert 50 < left < 70 and 90 < right <= 100  # the right one


# --- live or not ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "between"),
    [
        ([0, 15, 30], True),
        ([0.0, 0.5, 1.0], True),
        (list(np.linspace(0, 1, 5)), True),
        ([0, 1, 2], False),
        ([1, 2, 4], False),
        ([3, 2, 1], False),
        ([1.0], False),
        (["a", "b"], False),
    ],
)
def test_live_only_where_there_are_values_between(values, between):
    assert _slider._has_values_between(values) is between


@pytest.fixture
def kernel(monkeypatch):
    """A notebook kernel whose last request came from a reader, or from a program."""
    IPython = pytest.importorskip("IPython")

    def start(allow_stdin):
        request = {"content": {"allow_stdin": allow_stdin}}
        shell = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: request))
        monkeypatch.setattr(IPython, "get_ipython", lambda: shell)

    return start


def test_a_program_that_runs_the_notebook_gets_the_static_slider(kernel):
    kernel(allow_stdin=False)
    assert set(slider()._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_a_reader_gets_a_live_slider_as_well(kernel):
    widgets = pytest.importorskip("ipywidgets")
    kernel(allow_stdin=True)
    bundle = slider()._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert slider(live=False)._repr_mimebundle_().keys() == {"text/plain", "text/html"}
    control, picture = slider()._live(widgets).children
    assert isinstance(control, widgets.FloatSlider) and control.step == pytest.approx(0.05)
    assert "It rises." in slider(answer="It rises.")._live(widgets).children[-1].value
    control.value = 0.25  # a value that has no frame
    assert Page(picture.value).all("img")[0]["alt"] == "a line up to 0.25"


def test_a_legend_in_an_empty_place_stays_on_a_phone():
    figure, axes = viz.subplots(1, 3, size=(8.6, 2.7))
    for ax in axes[:2]:
        ax.plot([0, 1], label="one")
    axes[2].set_axis_off()
    with viz._narrow.narrowed(figure):
        assert not axes[2].get_visible()  # nothing there
    axes[2].legend(*axes[0].get_legend_handles_labels(), loc="center")
    with viz._narrow.narrowed(figure):
        figure.canvas.draw()
        box = axes[2].get_legend().get_window_extent()
        assert axes[2].get_visible() and figure.bbox.contains(*box.min)


def in_the_dark(colour):
    """What the pages' style sheet makes of it: inverted, its hue turned back, on their black."""
    r, g, b = 1 - colour
    turned = [
        -0.574 * r + 1.430 * g + 0.144 * b,
        0.426 * r + 0.430 * g + 0.144 * b,
        0.426 * r + 1.430 * g - 0.856 * b,
    ]
    return 1 - (1 - np.clip(turned, 0, 1)) * (1 - DARK)


def contrast(one, other):
    bright = [
        np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)
        for c in (one, other)
    ]
    return (max(bright) + 0.05) / (min(bright) + 0.05)


DARK = np.full(3, 0x12 / 255)


def test_colours_differ_and_are_seen_on_paper_and_in_the_dark():
    from matplotlib.colors import to_rgb

    assert len(set(viz.COLORS.values())) == len(viz.COLORS) >= 8
    for name, code in viz.COLORS.items():
        colour = np.array(to_rgb(code))
        assert contrast(colour, np.ones(3)) > 2, name
        assert contrast(in_the_dark(colour), DARK) > 3, name


def test_a_curve_beyond_the_colours_is_dashed():
    _, ax = viz.subplots()
    lines = [ax.plot([0, 1])[0] for _ in range(3 * len(viz.COLORS))]
    looks = [(line.get_color(), line.get_linestyle()) for line in lines]
    assert len(set(looks)) == len(looks)
    assert [look for _, look in looks[:8]] == ["-"] * 8


@pytest.mark.parametrize(
    ("cmap", "keeps"),
    [("gray", True), ("Greys", True), ("magma", True), ("RdBu_r", False), ("Blues", False)],
)
def test_numbers_in_a_colour_map_with_white_follow_the_page_in_the_dark(cmap, keeps):
    figure = viz.grid([np.random.rand(4, 4)], cmap=cmap)
    assert ('data-photos="' in viz.show(figure, alt="weights").html) is keeps
    both, axes = viz.subplots(1, 2)
    axes[0].imshow(np.random.rand(4, 4), cmap=cmap)
    axes[1].imshow(np.random.rand(4, 4, 3))
    corners = viz.show(both, alt="weights and a photograph").html.split('data-photos="')[1]
    assert corners[: corners.index('"')].count(",") == (
        10 if keeps else 4
    )  # five of a box, and a way


def test_a_wipe_holds_each_picture_once_and_says_what_it_shows():
    before = [torch.rand(1, 24, 32) for _ in range(2)]
    after = {"plain": before[::-1], "strict": before}
    picture = viz.wipe(
        before, after, alt="restored by {name}", names=("rain", "restored"), caption="a finding",
        values=("0°", "90°"), label="Turn", notes={"plain": ("1 dB", "2 dB")},
    )  # fmt: skip
    page = Page(picture.html)
    images = [tags for tag, tags in page.tags if tag == "img"]
    assert [i["alt"] for i in images] == ["restored by plain"] * 2 + ["restored by strict"] * 2
    assert picture.html.count("data:image/webp") == 4 + 2  # what both start from is stored once
    ranges = [tags for tag, tags in page.tags if tag == "input"]
    assert [r["max"] for r in ranges] == ["1", "100"]
    assert "--at:50%" in picture.html
    assert "1 dB" in page.text
    assert "script" not in [tag for tag, _ in page.tags]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"after": {}}, "at least one picture"),
        ({"alt": " "}, "alternative text"),
        ({"after": {"small": np.zeros((4, 4))}}, r"small of shape \(8, 8\), got \(4, 4\)"),
        ({"values": ("a", "b"), "label": ""}, "2 values need a label"),
        (
            {"values": ("a", "b"), "label": "Turn", "before": [np.zeros((8, 8))]},
            "2 images for before",
        ),
        ({"notes": {"plain": ("a", "b")}}, "1 notes for plain, got 2"),
    ],
)
def test_a_wipe_says_what_is_wrong(change, message):
    given = {"before": np.zeros((8, 8)), "after": {"plain": np.ones((8, 8))}, "alt": "a"} | change
    with pytest.raises(ValueError, match=message):
        viz.wipe(**given)
