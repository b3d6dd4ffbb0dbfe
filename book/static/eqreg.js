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
      next.forEach(breakable);
      await new Promise(resume => setTimeout(resume));
    }
    await MathJax.typesetPromise(); // what stands elsewhere, as in a cell's output
  },
};
// A long formula in a line of text may break behind its relations, sums and commas, as in a printed book; a stop after
// a formula never begins a line, a bracket before one never ends it.
function breakable(formula) {
  let row = formula.querySelector('mjx-math');
  if (!row || formula.tagName !== 'SPAN') return;
  while (row.children.length === 1 && /MROW|MSTYLE|TEXATOM/.test(row.firstElementChild.tagName)) row = row.firstElementChild;
  const parts = [...row.children];
  const space = (part, ...sizes) => sizes.includes(part?.getAttribute('space'));
  let open = [];
  if (parts.length > 6) parts.forEach((part, i) => {
    const glyph = String.fromCodePoint(parseInt(part.querySelector('mjx-c')?.className.slice(5) || '20', 16));
    const sign = part.tagName === 'MJX-MO';
    if (sign && '([{⟨'.includes(glyph) || '|∣‖∥'.includes(glyph) && open.at(-1) !== glyph) open.push(glyph);
    else if (')]}⟩|∣‖∥'.includes(glyph)) open.pop();
    else if (!open.length && (sign && space(part, '3', '4') || space(parts[i + 1], '2')))
      part.after(document.createElement('wbr'));
  });
  const before = formula.previousSibling;
  const bracket = before?.nodeType === Node.TEXT_NODE && before.data.match(/[([“‘]+$/)?.[0];
  if (bracket) formula.prepend(before.splitText(before.length - bracket.length));
  const after = formula.nextSibling;
  const stop = after?.nodeType === Node.TEXT_NODE && after.data.match(/^[.,;:!?)\]’”]+/)?.[0];
  if (!stop) return;
  after.splitText(stop.length);
  formula.append(after);
}
// What the theme's markup leaves out for readers who listen or use the keyboard.
const SCROLLS = 'main :is(pre, :has(> img[src$=".svg"]), mjx-container[display], .math.wide)';
const FRAMES = 'main :is(.eqreg-table, .pst-scrollable-table-container, .cell_output > .output)'; // have a tab stop
function reachable() {
  for (const formula of document.querySelectorAll('main span.math')) formula.classList.remove('wide', 'goes-on');
  const wide = [...document.querySelectorAll('main span.math')].filter(tooWide);
  wide.forEach(formula => formula.classList.add('wide'));
  // What scrolls sideways (code, output, formulas, drawings on a phone) can be reached by the tab key, others need not.
  for (const box of document.querySelectorAll(SCROLLS))
    if (box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== 'visible') box.tabIndex = 0;
    else if (box.tagName === 'PRE') box.tabIndex = -1;
    else box.removeAttribute('tabindex');
  document.querySelectorAll(`${SCROLLS}, ${FRAMES}`).forEach(goesOn);
}
function tooWide(formula) {
  const block = formula.closest('p, li, dd, td, th, figcaption, div');
  const edge = block.getBoundingClientRect().right;
  return [...formula.querySelectorAll('mjx-math > *')].some(part => part.getBoundingClientRect().right > edge + 1);
}
// Phones show no bar where something scrolls, so that code seems to end in the middle of a line.
function goesOn(box) {
  const rest = box.scrollWidth - box.clientWidth - box.scrollLeft;
  box.classList.toggle('goes-on', rest > 4 && getComputedStyle(box).overflowX !== 'visible');
}
document.addEventListener('DOMContentLoaded', () => {
  // The button's own words, "Search Ctrl+K", are its name; entries of the bibliography are no list items.
  document.querySelectorAll('.search-button-field').forEach(b => b.removeAttribute('aria-label'));
  document.querySelectorAll('.citation-list').forEach(list => list.removeAttribute('role'));
  for (const cell of document.querySelectorAll('main td')) {
    const letters = cell.textContent.trim().length;
    cell.classList.toggle('words', letters > 24);
    cell.classList.toggle('sentence', letters > 48);
  }
  reachable();
  addEventListener('load', () => {
    setTimeout(reachable);
    window.MathJax?.startup?.promise?.then(reachable);
  });
  addEventListener('resize', reachable);
  addEventListener('scroll', event => event.target.matches?.(`${SCROLLS}, ${FRAMES}`) && goesOn(event.target), true);
  document.addEventListener('toggle', reachable, true);
});
