"""Which formulas of a page are set first."""

from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "book" / "static" / "eqreg.js"
LINES = "".join(f"<p style='height:40px'><span class='math'>{n}</span></p>" for n in range(100))
STUB = """async () => {
  const batches = [];
  Object.assign(MathJax, {typesetPromise: async boxes => batches.push((boxes || []).map(b => +b.textContent))});
  MathJax.startup.defaultPageReady = async () => {};
  await MathJax.startup.pageReady();
  return batches;
}"""


def test_formulas_in_view_are_set_first_and_all_are_set(browser, tmp_path):
    (tmp_path / "page.html").write_text(
        "<!doctype html><script>MathJax = {}</script>"
        f"<script>{SCRIPT.read_text(encoding='utf8')}</script><main>{LINES}</main>"
    )
    page = browser.new_page(viewport={"width": 800, "height": 400})
    page.goto((tmp_path / "page.html").as_uri())
    page.evaluate("scrollTo(0, 2400)")
    first, *others, rest = page.evaluate(STUB)
    page.close()
    assert 6 <= len(first) <= 9
    assert min(first) > 35
    assert not rest  # everything else on the page, asked for as a whole
    assert all(0 < len(batch) <= 40 for batch in others)
    assert sorted(sum(others, first)) == list(range(100))
