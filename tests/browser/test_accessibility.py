"""axe-core on every page: at a desk in light, on a phone in dark, without a serious violation."""

import page_checks as checks
import pytest
from test_pages import HTML, PAGES, ROOT

AXE = ROOT / "book" / "web" / "node_modules" / "axe-core" / "axe.min.js"
SCREENS = (("light", checks.FIRST_SCREENS[0]), ("dark", checks.FIRST_SCREENS[1]))
RUN = """async () => (await axe.run(document, {resultTypes: ['violations']})).violations
  .filter(v => ['serious', 'critical'].includes(v.impact))
  .map(v => `${v.id} (${v.nodes.length}): ${v.nodes[0].html.slice(0, 120)}`)"""

# The list of a package's modules and their listings are Sphinx's own, alike, and not read on phones.
READ = [page for page in PAGES if not page.startswith("_modules/")]


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: `make npm` fetches it where npm is")
@pytest.mark.parametrize("path", READ or ["not built"])
def test_no_serious_violation(path, serve, browser, unavailable):
    if not PAGES:
        unavailable("no pages; build them first: make book")
    seen = checks.visit(browser, serve(HTML), path)
    faults = []
    for scheme, screen in SCREENS:
        seen.page.set_viewport_size(screen)
        seen.page.evaluate("mode => document.documentElement.dataset.theme = mode", scheme)
        seen.page.evaluate(AXE.read_text(encoding="utf8"))
        faults += [f"{scheme}, {screen['width']} px: {line}" for line in seen.page.evaluate(RUN)]
    seen.page.close()
    assert not faults, "\n".join(faults)
