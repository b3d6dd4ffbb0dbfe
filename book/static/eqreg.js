// Formulas in view are set first, then the others, some at a time: a page can be read and scrolled meanwhile.
if (window.MathJax) MathJax.startup = {
  typeset: false,
  async pageReady() {
    await MathJax.startup.defaultPageReady();
    let left = [...document.querySelectorAll('.math')];
    while (left.length) {
      const places = left.map(box => box.getBoundingClientRect());
      const seen = left.filter((_, i) => places[i].width && places[i].bottom > 0 && places[i].top < innerHeight);
      const next = new Set(seen.length ? seen : left.slice(0, 40));
      left = left.filter(box => !next.has(box));
      await MathJax.typesetPromise([...next]);
      await new Promise(resume => setTimeout(resume));
    }
    await MathJax.typesetPromise(); // what stands elsewhere, as in a cell's output
  },
};
// What the theme's markup leaves out for readers who listen or use the keyboard.
function reachable() {
  // What scrolls sideways (code, output, drawings on a phone) can be reached by the tab key, others need not.
  for (const pre of document.querySelectorAll('main pre, main figure:has(> img[src$=".svg"])'))
    pre.tabIndex = pre.scrollWidth > pre.clientWidth ? 0 : -1;
  // MathJax comes without its menu, which did this for formulas.
  for (const formula of document.querySelectorAll('main mjx-container[display]'))
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
    else formula.removeAttribute('tabindex');
}
document.addEventListener('DOMContentLoaded', () => {
  // The button's own words, "Search Ctrl+K", are its name; entries of the bibliography are no list items.
  document.querySelectorAll('.search-button-field').forEach(b => b.removeAttribute('aria-label'));
  document.querySelectorAll('.citation-list').forEach(list => list.removeAttribute('role'));
  reachable();
  addEventListener('load', () => {
    setTimeout(reachable);
    window.MathJax?.startup?.promise?.then(reachable);
  });
  addEventListener('resize', reachable);
  document.addEventListener('toggle', reachable, true);
});
