"""What a reader with a phone can read: formulas in lines of text, drawings, and what goes on beyond the edge."""

from page_checks import DESKTOP, FIRST_SCREENS

PHONE = FIRST_SCREENS[1]

# Text that stands beside a formula, with the formula's last or first piece.
FORMULAS = r"""() => {
  const faults = [], seen = e => e.checkVisibility();
  const clips = e => getComputedStyle(e).overflowX;
  for (const math of [...document.querySelectorAll('main span.math')].filter(seen)) {
    const right = Math.max(...[...math.querySelectorAll('mjx-math > *')].map(e => e.getBoundingClientRect().right));
    for (let box = math; box.tagName !== 'MAIN'; box = box.parentElement) {
      if (['auto', 'scroll'].includes(clips(box))) break;
      if (clips(box) !== 'visible' && right > box.getBoundingClientRect().right + 1) {
        faults.push('cut: ' + math.textContent);
        break;
      }
    }
    const walk = document.createTreeWalker(math.parentElement, NodeFilter.SHOW_TEXT);
    walk.currentNode = math.querySelector('mjx-assistive-mml') ?? math;
    let text = walk.nextNode();
    while (text && text.parentElement.closest('mjx-container')) text = walk.nextNode();
    if (!text || !/^[.,;:!?)]/.test(text.data)) continue;
    const range = document.createRange();
    range.setStart(text, 0); range.setEnd(text, 1);
    const last = [...math.querySelector('mjx-math').getClientRects()].at(-1);
    if (range.getBoundingClientRect().top > last.bottom)
      faults.push(`${text.data[0]} begins a line after ${math.textContent}`);
  }
  return faults;
}"""

# Nine pixels are the least that we ask of letters in figures; what is drawn smaller has to be shown larger.
DRAWINGS = r"""async () => {
  const faults = [];
  for (const img of document.querySelectorAll('main img[src$=".svg"]:not([src$="/colab.svg"])')) {
    const sizes = [...(await (await fetch(img.src)).text()).matchAll(/font-size="([\d.]+)/g)].map(m => +m[1]);
    const least = Math.min(...sizes) * img.getBoundingClientRect().width / img.naturalWidth;
    if (least < 9) faults.push(`letters of ${least.toFixed(1)} px: ${img.src.split('/').at(-1)}`);
  }
  return faults;
}"""

# A column of numbers as wide as sentences pushes its neighbours out of sight; sentences as narrow as a word read badly.
COLUMNS = """() => [...document.querySelectorAll('main td')].filter(e => e.checkVisibility()).flatMap(e => {
  const letters = e.textContent.trim().length, width = e.getBoundingClientRect().width;
  const row = e.parentElement, table = row.closest('table');
  const lengths = [...table.rows].map(r => r.cells[e.cellIndex]?.textContent.trim().length ?? 0);
  const widest = Math.max(...lengths);
  const cut = table.getBoundingClientRect().width > innerWidth && row.cells.length > 2;
  return cut && widest < 12 && width > 150 ? [`${width.toFixed(0)} px for ${e.textContent.trim()}`]
    : letters > 60 && width < 110 ? [`a sentence in ${width.toFixed(0)} px: ${e.textContent.trim().slice(0, 40)}`] : [];
})"""

BROKEN_NAMES = r"""() => [...document.querySelectorAll('main dt.sig em.sig-param > .n:first-child')]
  .filter(e => /^\w{1,24}$/.test(e.textContent) && e.getClientRects().length > 1)
  .map(e => `broken though a line holds it: ${e.textContent}`)"""

HINTS = """() => [...document.querySelectorAll('main *')]
  .filter(e => e.checkVisibility() && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX))
  .filter(e => e.scrollWidth - e.clientWidth > 4 && getComputedStyle(e).maskImage === 'none')
  .map(e => `does not say that it goes on: ${e.outerHTML.slice(0, 80)}`)"""


# What went on beyond the edge of a narrow window, and does no longer.
FADED = """() => [...document.querySelectorAll('main .goes-on')]
  .filter(e => e.scrollWidth - e.clientWidth <= 4 || getComputedStyle(e).overflowX === 'visible')
  .map(e => `still fades: ${e.outerHTML.slice(0, 80)}`)"""


def on_a_phone(seen, *checks):
    seen.page.set_viewport_size(PHONE)
    seen.page.evaluate("new Promise(next => requestAnimationFrame(() => setTimeout(next)))")
    faults = [fault for check in checks for fault in seen.page.evaluate(check)]
    # Narrower than any phone, so that formulas do go on.
    for screen in ({"width": 120, "height": 812}, DESKTOP):
        seen.page.set_viewport_size(screen)
        seen.page.evaluate("new Promise(next => requestAnimationFrame(() => setTimeout(next)))")
    return faults + seen.page.evaluate(FADED)


def reading_faults(seen):
    """Formulas are whole, drawings have letters of nine pixels, columns fit what they hold, what goes on fades."""
    return on_a_phone(seen, FORMULAS, DRAWINGS, COLUMNS, BROKEN_NAMES, HINTS)


OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  const left = [...document.querySelectorAll('main :is(mjx-container, img, table, p)')].filter(
    e => e.getBoundingClientRect().width && e.getBoundingClientRect().left < -1);
  if (left.length) return left.map(e => `no scrolling leads to its left: ${e.textContent.slice(0, 40)}`);
  if (document.documentElement.scrollWidth <= width) return [];
  const wide = e => e.getBoundingClientRect().right > width + 1;
  const scrolls = e => e && (getComputedStyle(e).overflowX != 'visible' || scrolls(e.parentElement));
  const inMain = [...document.querySelectorAll('main *')];
  const named = inMain.filter(e => wide(e) && !scrolls(e)).slice(-2).map(e => e.outerHTML);
  const html = named.map(text => text.slice(0, 80)).join(', ');
  return [`${document.documentElement.scrollWidth} px wide on ${width} px: ${html}`];
}"""


# Half a phone is too narrow for the sentence that says what the next page is about.
NARROW_WAYS = """() => [...document.querySelectorAll('.prev-next-words')]
  .filter(e => e.parentElement.getBoundingClientRect().width < 200)
  .map(e => `${Math.round(e.getBoundingClientRect().width)} px for: ${e.textContent.slice(0, 40)}`)"""


# Their figures and tables do.
SCROLLS_TWICE = """() => [...document.querySelectorAll('.cell_output > .output.text_html')]
  .filter(e => /auto|scroll/.test(getComputedStyle(e).overflow)).map(e => `scrolls: ${e.innerHTML.slice(0, 60)}`)"""


def phone_faults(seen):
    """The page scrolls only downwards on a phone, with everything unfolded too; the ways on are wide enough to read."""
    seen.page.set_viewport_size(PHONE)
    narrow = seen.page.evaluate(NARROW_WAYS) + seen.page.evaluate(SCROLLS_TWICE)
    folded = seen.page.evaluate(OVERFLOW)
    seen.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    unfolded = seen.page.evaluate(OVERFLOW)
    seen.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = false)")
    seen.page.set_viewport_size(DESKTOP)
    return narrow or folded or unfolded
