"""What a page in the dark must not show."""

# Pictures are apart: what they hold is known to nobody here.
LIGHT_BOXES = r"""() => [...document.querySelectorAll('main :not(img, input, select, button, option, canvas)')]
  .filter(e => e.checkVisibility() && e.getBoundingClientRect().width > 100)
  .filter(e => (getComputedStyle(e).backgroundColor.match(/[\d.]+/g) ?? [0, 0, 0, 0])
    .every((v, i) => i < 3 ? v > 150 : v > 0.5))
  .map(e => `light in the dark: ${e.outerHTML.slice(0, 80)}`)"""


def light_box_faults(seen):
    """Boxes that stayed light when the page went dark."""
    return seen.page.evaluate(LIGHT_BOXES)
