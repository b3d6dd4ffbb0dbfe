"""The checks themselves: each passes a good page and fails a page with one fault."""

import page_checks as checks
import phone_checks
import pytest

GOOD = """<!doctype html><title>t</title><link rel="icon" href="data:,"><main>
<h1>Title</h1><p>Costs $5.</p><code>$x$</code><a href="#here">link</a><p id="here">text</p>
<figure><img alt="a" width="200" src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=">
<img alt="b" src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=#b" style="display:none">
<input type="range" min="0" max="1" value="0" oninput="this.closest('figure')
.querySelectorAll('img').forEach((m, i) => m.style.display = i == this.value ? '' : 'none')">
</figure><details><summary>Hint</summary><p>Because.</p></details></main>"""

FAULTS = [
    (checks.network_faults, "<p>", "<script>console.error('no')</script><p>"),
    (checks.network_faults, "<p>", "<script>throw Error('no')</script><p>"),
    (checks.network_faults, "<p>", "<script src='missing.js'></script><p>"),
    (checks.network_faults, "<p>", "<img alt='far' src='http://example.org/a.png'><p>"),
    (checks.maths_faults, "Costs $5.", "Costs $x^2$."),
    (checks.maths_faults, "Costs $5.", r"\(x\)"),
    (
        checks.maths_faults,
        "Costs $5.",
        "So $<span class='math'><mjx-container></mjx-container></span>$",
    ),
    (checks.maths_faults, "Costs $5.", r"with \eta small"),
    (checks.maths_faults, "Costs $5.", "{prf:ref}`law`"),
    (checks.maths_faults, "Costs $5.", "`f(x)` costs"),
    (checks.maths_faults, "Costs $5.", "Alias for field number 0"),
    (checks.maths_faults, "Costs $5.", "Thisisaparagraphwithoutanyspaces."),
    (checks.maths_faults, "Costs $5.", "<span class='math'>x</span>"),
    (checks.image_faults, 'alt="b"', 'alt=" "'),
    (checks.image_faults, 'alt="b"', ""),
    (checks.image_faults, 'width="200" src="data:', 'src="broken:'),
    (checks.heading_faults, "<p>", "<h1>Another</h1><p>"),
    (phone_checks.phone_faults, "<p>", "<p style='width:500px'>"),
    (
        phone_checks.phone_faults,
        "<p>",
        "<div style='display:flex;justify-content:end;overflow:hidden'><p style='min-width:500px'>",
    ),
    (
        phone_checks.phone_faults,
        "<p>",
        "<div style='width:45%'>10<span class='prev-next-words'>Can it?</span></div><p>",
    ),
    (
        phone_checks.phone_faults,
        "Because.",
        "<span style='white-space:pre'>" + "wide " * 99 + "</span>",
    ),
    (
        phone_checks.phone_faults,
        "<p>",
        "<div class='cell_output'><div class='output text_html' style='overflow-x:auto'>1</div></div><p>",
    ),
    (
        checks.code_faults,
        "Because.",
        "<div class='cell_input'><pre style='overflow:auto'>" + "x" * 900 + "</pre></div>",
    ),
    (checks.slider_faults, "oninput", "data-oninput"),
    (checks.folded_faults, "<details>", "<details open>"),
    (checks.folded_faults, "<details>", "<details ontoggle='this.open = false'>"),
    (checks.fold_name_faults, "<summary>Hint", "<summary>Toggle hidden content"),
    (checks.fold_name_faults, "<summary>", "<summary aria-label='Show code cell source'>"),
    (checks.first_screen_faults, "<figure>", "<figure style='margin-top:700px'>"),
    (checks.first_screen_faults, 'alt="a"', 'alt="a" style="display:none"'),
    (checks.weight_faults, "<p>", "<!--" + 2_000_000 * "x" + "--><p>"),
    (checks.contrast_faults, "<p>", "<p style='color:#999'>"),
    (checks.contrast_faults, "<p>", "<p style='opacity:.4'>"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def faults(folder, serve, browser):
    site = serve(folder)

    def run(check, html):
        (folder / "page.html").write_text(html)
        seen = checks.visit(browser, site, "page.html")
        found = check(seen)
        seen.page.close()
        return found

    return run


@pytest.mark.parametrize("check", sorted({c for c, *_ in FAULTS}, key=lambda c: c.__name__))
def test_good_page_passes(faults, check):
    assert faults(check, GOOD) == []


@pytest.mark.parametrize(("check", "good", "bad"), FAULTS)
def test_fault_is_found(faults, check, good, bad):
    assert good in GOOD
    assert faults(check, GOOD.replace(good, bad))


@pytest.mark.parametrize("target", ["#nowhere", "missing.html"])
def test_dead_link_is_found(faults, folder, target):
    def check(seen):
        return checks.link_faults(seen, folder)

    assert faults(check, GOOD) == []
    assert faults(check, GOOD.replace("#here", target))


AXE = """window.axe = {run: async () => ({violations: [...document.querySelectorAll('.output')]
  .filter(box => box.scrollWidth > box.clientWidth && box.tabIndex < 0)
  .map(box => ({id: 'stopless', impact: 'serious', nodes: [{html: box.outerHTML}]}))})}"""
WIDE = """<div class="cell_output"><div class="output" tabindex="-1" style="overflow:auto">
<div style="width:900px">wide</div></div></div>"""
THEME = """<script>addEventListener('resize', () => setTimeout(() => {
document.querySelector('.output').tabIndex = 0}, 300))</script>"""


@pytest.mark.parametrize(("theme", "number"), [(THEME, 0), ("", 1)])
def test_what_scrolls_gets_the_time_to_have_its_tab_stop(faults, theme, number):
    found = faults(lambda seen: checks.axe_faults(seen, AXE), WIDE + theme)
    assert len(found) == number
