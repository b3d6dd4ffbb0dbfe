"""What must hold on every page. Each check returns the faults it found, one line each."""

import functools
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

DESKTOP = {"width": 1280, "height": 900}
FIRST_SCREENS = ({"width": 1400, "height": 900}, {"width": 375, "height": 812})


@dataclass
class Visit:
    """A page that was opened, and what happened while it loaded."""

    page: object
    site: str
    console: list = field(default_factory=list)
    failed: list = field(default_factory=list)
    outside: list = field(default_factory=list)
    weight: int = 0  # bytes that came before anybody scrolled


WEIGHT = """['navigation', 'resource'].flatMap(kind => performance.getEntriesByType(kind))
  .reduce((sum, e) => sum + e.encodedBodySize, 0)"""
HEAVIEST = 2_000_000  # bytes


def visit(browser, site, path, **options):
    """Open ``site/path``; requests to other hosts are recorded and refused."""
    page = browser.new_page(viewport=DESKTOP, **options)
    seen = Visit(page, site)

    def watch(route):
        url = route.request.url
        if url.startswith(site + "/"):
            route.continue_()
        else:
            seen.outside.append(url)
            route.abort()

    def note_response(response):
        if response.status >= 400:
            seen.failed.append(f"{response.status} {response.url}")

    page.route("**/*", watch)
    page.on("console", lambda m: seen.console.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: seen.console.append(str(error)))
    page.on("requestfailed", lambda request: seen.failed.append(f"failed {request.url}"))
    page.on("response", note_response)
    page.goto(f"{site}/{path}")
    # MathJax typesets after loading, and only then are its fonts asked for.
    page.evaluate("window.MathJax?.startup?.promise.then(() => null)")
    page.wait_for_load_state("networkidle")
    seen.weight = page.evaluate(WEIGHT)
    return seen


def network_faults(seen):
    return [
        *(f"console error: {text}" for text in seen.console),
        *(f"request failed: {text}" for text in seen.failed),
        *(f"request to another host: {url}" for url in seen.outside),
    ]


def weight_faults(seen):
    return [] if seen.weight <= HEAVIEST else [f"{seen.weight / 1e6:.2f} MB before scrolling"]


MATHS = r"""() => {
  const faults = [];
  for (const e of document.querySelectorAll('.math'))
    if (!e.querySelector('mjx-container')) faults.push('not typeset: ' + e.textContent.trim());
  for (const e of document.querySelectorAll('mjx-merror, [data-mjx-error]'))
    faults.push('maths error: ' + e.textContent);
  // Prices are fine ($5); a dollar before anything else, a TeX command, a role or a backtick is not.
  const raw = /`|Alias for field|\$(?!\d)|\$[^$]+\$|\\\(|\\\[|\\[a-zA-Z]{2,}|\{[a-z:]+\}`|^:::/;
  const runTogether = /\b[a-zA-Z]{27,}\b/;
  const walk = document.createTreeWalker(document.querySelector('main') ?? document.body, 4);
  for (let n = walk.nextNode(); n; n = walk.nextNode()) {
    if (n.parentElement.closest('pre, code, script, style, mjx-container')) continue;
    if (raw.test(n.data)) faults.push('raw source: ' + n.data.trim());
    if (runTogether.test(n.data)) faults.push('words without a space: ' + n.data.trim());
  }
  return faults;
}"""


def maths_faults(seen):
    return seen.page.evaluate(MATHS)


IMAGES = """() => {
  const faults = [];
  for (const i of document.images) {
    const name = (i.getAttribute('src') || '').slice(0, 60);
    if (!i.alt.trim()) faults.push('no alt text: ' + name);
    if (i.complete && !i.naturalWidth) faults.push('not shown: ' + name);
  }
  return faults;
}"""


def image_faults(seen):
    return seen.page.evaluate(IMAGES)


def heading_faults(seen):
    # The theme keeps a second title for print.
    count = seen.page.locator("h1:visible").count()
    return [] if count == 1 else [f"{count} h1 headings, expected 1"]


WIDE_CODE = """() => {
  const folds = [...document.querySelectorAll('main details:not([open])')];
  folds.forEach(fold => fold.open = true);
  const wide = [...document.querySelectorAll('main .cell_input pre')].filter(e => e.scrollWidth > e.clientWidth + 1);
  const faults = wide.map(e => `${e.scrollWidth} px of code in ${e.clientWidth}: ${e.textContent.slice(0, 60)}`);
  folds.forEach(fold => fold.open = false);
  return faults;
}"""


def code_faults(seen):
    """No code scrolls sideways in a wide window, folded or not."""
    seen.page.set_viewport_size(FIRST_SCREENS[0])
    faults = seen.page.evaluate(WIDE_CODE)
    seen.page.set_viewport_size(DESKTOP)
    return faults


PICTURE = """slider => JSON.stringify([...(slider.closest('figure') ?? slider.parentElement)
  .querySelectorAll('img, canvas, svg, [role=img]')]
  .filter(e => e.checkVisibility())
  .map(e => (e.src ?? e.outerHTML) + getComputedStyle(e).clipPath))"""


def slider_faults(seen):
    """A static slider shows one picture at a time, and not always the same."""
    faults = []
    for slider in seen.page.locator("main input[type=range]").all():
        low, high = (int(slider.get_attribute(end)) for end in ("min", "max"))
        pictures = set()
        # The middle too: a full turn looks like none.
        for place in (low, (low + high + 1) // 2, high):
            slider.fill(str(place))
            pictures.add(slider.evaluate(PICTURE))
        if len(pictures) < 2 or "[]" in pictures:
            faults.append(f"the picture does not move: {slider.evaluate('e => e.outerHTML')[:80]}")
    return faults


# The first is clicked as a reader does, by its place on the screen; the others, which are made alike, by their element.
FOLDED = """folds => folds.flatMap((d, i) => {
  const name = d.querySelector('summary').innerText.trim();
  if (d.open && i > 0) return [`open from the start: ${name}`];
  if (i > 0) d.querySelector('summary').click();
  return d.open && d.lastElementChild.checkVisibility() ? [] : [`does not open: ${name}`];
})"""


def folded_faults(seen):
    """What is folded (hints, solutions) starts closed, and a click on its summary opens it."""
    folds = seen.page.locator("main details")
    if not folds.count():
        return []
    if folds.first.evaluate("d => d.open"):
        return [f"open from the start: {folds.first.locator('summary').first.inner_text()}"]
    folds.first.locator("summary").first.click()
    return folds.evaluate_all(FOLDED)


FOLD_NAMES = """() => [...document.querySelectorAll('main details > summary')]
  .map(s => s.ariaLabel ?? s.innerText.trim())
  .filter(name => !name || /^(Toggle|Show|Hide|Click|Details)\\b/.test(name))
  .map(name => `a fold does not say what it holds: ${name}`)"""


def fold_name_faults(seen):
    return seen.page.evaluate(FOLD_NAMES)


PICTURE_TOP = """() => {
  const shown = [...document.querySelectorAll('main figure :is(img, svg, canvas)')]
    .find(e => e.checkVisibility() && e.getBoundingClientRect().width > 100);
  return shown ? shown.getBoundingClientRect().top + scrollY : Infinity;
}"""


def first_screen_faults(seen):
    """A picture begins in the upper two thirds of the first screen, at a desk and on a phone."""
    faults = []
    for screen in FIRST_SCREENS:
        seen.page.set_viewport_size(screen)
        top = seen.page.evaluate(PICTURE_TOP)
        if top > screen["height"] * 2 / 3:
            faults.append(f"first picture at {top:.0f} px of {screen['height']}")
    seen.page.set_viewport_size(DESKTOP)
    return faults


def link_faults(seen, folder):
    """Links within the site lead to a file, and their fragment to an element."""
    faults = set()
    base = seen.page.url
    for href in seen.page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)"):
        url, fragment = urldefrag(urljoin(base, href))
        if not url.startswith(seen.site + "/"):
            continue
        target = folder / unquote(urlsplit(url).path).lstrip("/")
        target = target / "index.html" if target.is_dir() else target
        if not target.is_file():
            faults.add(f"leads nowhere: {href}")
        elif fragment and target.suffix == ".html" and unquote(fragment) not in _places(target):
            faults.add(f"no such place on the page: {href}")
    return sorted(faults)


@functools.cache
def _places(page):
    return set(re.findall(r'\b(?:id|name)="([^"]*)"', page.read_text(encoding="utf8")))


# Contrast of text to the colour behind it, after WCAG 2: 4.5 for body text.
CONTRAST = """() => {
  const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = css => {
    paint.clearRect(0, 0, 1, 1); paint.fillStyle = css; paint.fillRect(0, 0, 1, 1);
    return paint.getImageData(0, 0, 1, 1).data;
  };
  const light = c => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => {
    const v = c[i] / 255;
    return sum + w * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = rgba(getComputedStyle(e).backgroundColor);
      if (c[3] > 250) return c;
    }
    return rgba('white');
  };
  const text = 'p, li, td, th, dt, dd, figcaption, a, h1, h2, h3, code, output';
  const faults = new Set();
  for (const e of document.querySelectorAll(`main :is(${text})`)) {
    const words = e.textContent.trim().slice(0, 40);
    if (!words || !e.checkVisibility() || e.closest('.headerlink, .btn')) continue;
    let opaque = 1;
    for (let f = e; f; f = f.parentElement) opaque *= getComputedStyle(f).opacity;
    const [ink, paper] = [rgba(getComputedStyle(e).color), behind(e)];
    opaque *= ink[3] / 255;
    const seen = [0, 1, 2].map(i => opaque * ink[i] + (1 - opaque) * paper[i]);
    const [a, b] = [light(seen), light(paper)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faults.add(`contrast ${ratio.toFixed(1)}: ${e.tagName} ${words}`);
  }
  return [...faults];
}"""


def contrast_faults(seen):
    return seen.page.evaluate(CONTRAST)


# The theme gives what scrolls a tab stop, three tenths of a second after the window's last change
# of size; where it gives none within five seconds, axe-core names the box. Contrast has a check of its own, and is
# two fifths of axe-core's time.
AXE_RUN = """async () => {
  const stopless = () => [...document.querySelectorAll('.cell_output > .output')].some(
    box => box.scrollWidth > box.clientWidth && box.tabIndex < 0);
  for (let n = 0; n < 50 && stopless(); n++) await new Promise(next => setTimeout(next, 100));
  const rules = {'color-contrast': {enabled: false}};
  const {violations} = await axe.run(document, {resultTypes: ['violations'], rules});
  return violations.filter(v => ['serious', 'critical'].includes(v.impact))
    .map(v => `${v.id} (${v.nodes.length}): ${v.nodes[0].html.slice(0, 120)}`);
}"""


def axe_faults(seen, axe):
    """Serious violations that axe-core (its source) finds; the page is left light, at a desk."""
    faults = []
    seen.page.evaluate(axe)
    for scheme, screen in zip(("light", "dark"), FIRST_SCREENS, strict=True):
        seen.page.set_viewport_size(screen)
        seen.page.evaluate("mode => document.documentElement.dataset.theme = mode", scheme)
        found = seen.page.evaluate(AXE_RUN)
        faults += [f"{scheme}, {screen['width']} px: {line}" for line in found]
    seen.page.set_viewport_size(DESKTOP)
    seen.page.evaluate("document.documentElement.dataset.theme = 'light'")
    return faults
