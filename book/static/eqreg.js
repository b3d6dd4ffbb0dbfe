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
