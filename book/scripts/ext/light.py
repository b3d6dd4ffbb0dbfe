"""Sphinx extension: light pages.

A notebook's pictures carry their own data, so that they show anywhere. On a page they become files, which load
when they are seen; of a slider one. Where a figure holds photographs a second picture lies over it, which dark mode
shows in their places only, since it turns the rest to light on dark (``book/static/eqreg.css``). Of Font Awesome
pages get the icons that stand on them instead of a script of 1.5 MB and three fonts.
"""

import base64
import hashlib
import io
import re
from pathlib import Path

DATA = re.compile(r"data:image/(webp|png);base64,([A-Za-z0-9+/=]+)")
DRAWN = re.compile(
    r'<span class="drawn" data-photos="([^"]*)" (?:data-narrow-photos="([^"]*)" )?([^>]*)>'
    r"(<picture>.*?</picture>)</span>",
    re.S,
)
ICON_SCRIPT = re.compile(r'\s*<script src="[^"]*vendor/fontawesome[^"]*"></script>')
ICON_FONT = re.compile(r'\s*<link rel="preload" as="font"[^>]*vendor/fontawesome[^>]*>')
RULE = re.compile(r'((?:\.fa-[a-z0-9-]+:+before,?)+)\{content:"\\([0-9a-f]+)"\}')
# They ask for each other one by one; a page says at once which ones it will need.
STARTUP = re.compile(r'(\s*)(<script defer="defer" src="([^"]*)startup\.js[^"]*"></script>)')
MATHS = ("core", "input/tex", "output/chtml", "a11y/assistive-mml")
FONTS = {
    "fa-solid-900": ("Free", 900),
    "fa-regular-400": ("Free", 400),
    "fa-brands-400": ("Brands", 400),
}


def files_for_data(body: str, folder: Path, address: str) -> str:
    """The same page with pictures as files in ``folder``, which the page reaches as ``address``."""

    def moved(match: re.Match) -> str:
        data = base64.b64decode(match[2])
        file = folder / f"{hashlib.sha1(data).hexdigest()[:16]}.{match[1]}"
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return f"{address}/{file.name}"

    return DATA.sub(moved, body)


def photographs_twice(body: str) -> str:
    """A second picture over each that holds photographs, cut out to them; a photograph alone says so."""

    def doubled(match: re.Match) -> str:
        wide, narrow, rest, picture = match.groups()
        if wide == "all":
            return f'<span class="drawn photograph" {rest}>{picture}</span>'
        over = picture.replace(
            "<picture>",
            f'<picture class="photos" aria-hidden="true" style="--wide:polygon({wide});'
            f'--narrow:polygon({narrow or wide})">',
        )
        return f'<span class="drawn" {rest}>{picture}{over}</span>'

    return DRAWN.sub(doubled, body)


def choose_maths(app, config):
    """Of MathJax what pages use: TeX, set in HTML, with MathML for readers who listen; no menu, no speech engine."""
    config.mathjax_path = "mathjax/startup.js"
    given = config.mathjax3_config or {}
    config.mathjax3_config = given | {"loader": {"load": list(MATHS)}}


def ask_for_maths(page: str) -> str:
    """The page with the pieces of MathJax asked for from the beginning."""

    def hints(match: re.Match) -> str:
        space, script, folder = match.groups()
        pieces = [f"{name}.js" for name in (*MATHS, "output/chtml/fonts/tex")]
        links = [f'<link rel="preload" as="script" href="{folder}{piece}">' for piece in pieces]
        return space + space.join([*links, script])

    return STARTUP.sub(hints, page)


def lighten(app, page, template, context, tree):
    body = context.get("body")
    if body and "data:image/" in body:
        folder = Path(app.outdir, "_static", "drawn")
        body = files_for_data(body, folder, "../" * page.count("/") + "_static/drawn")
        context["body"] = photographs_twice(body)


def drawn_by_styles(css: str) -> set[int]:
    """Icons that a style sheet sets as text, as those before an admonition's title; escaped or as characters."""
    escaped = {int(code, 16) for code in re.findall(r"\\(f[0-9a-f]{3})\b", css)}
    return escaped | {ord(c) for c in css if "\ue000" <= c <= "\uf8ff"}


def icons(css: str, used: set[str], fonts: dict[str, bytes], more: set[int] = frozenset()) -> str:
    """Font Awesome's style sheet for the icons in use, with their glyphs inside.

    Args:
        css: the whole style sheet.
        used: classes of icons, such as ``fa-bars``.
        fonts: name of a font, such as ``fa-solid-900`` -> its TrueType file.
        more: code points of icons that style sheets set.
    """
    from fontTools import subset, ttLib

    names = {
        n: code for rule, code in RULE.findall(css) for n in re.findall(r"\.(fa-[a-z0-9-]+):", rule)
    }
    kept = {name: names[name] for name in sorted(used & set(names))}
    rules = [re.sub(r"@font-face\{[^}]*\}", "", RULE.sub("", css))]
    rules += [f'.{name}:before{{content:"\\{code}"}}' for name, code in kept.items()]
    for font, data in fonts.items():
        family, weight = FONTS[font]
        options = subset.Options(flavor="woff", layout_features=[], notdef_outline=True)
        file = ttLib.TTFont(io.BytesIO(data))
        codes = {int(code, 16) for code in kept.values()} | more
        wanted = sorted(codes & set(file.getBestCmap()))
        if not wanted:
            continue
        cutter = subset.Subsetter(options)
        cutter.populate(unicodes=wanted)
        cutter.subset(file)
        file.flavor, out = "woff", io.BytesIO()
        file.save(out)
        code = base64.b64encode(out.getvalue()).decode()
        rules.append(
            f'@font-face{{font-family:"Font Awesome 6 {family}";font-style:normal;font-weight:{weight};'
            f"font-display:block;src:url(data:font/woff;base64,{code}) format('woff')}}"
        )
    return "".join(rules)


def finish(app, problem):
    if problem is not None or app.builder.format != "html":
        return
    used, more = set(), set()
    for sheet in Path(app.outdir, "_static").rglob("*.css"):
        if "vendor" not in sheet.parts:
            more |= drawn_by_styles(sheet.read_text(encoding="utf8"))
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf8")
        used |= set(re.findall(r"\bfa-[a-z0-9-]+", text))
        lighter = ask_for_maths(ICON_FONT.sub("", ICON_SCRIPT.sub("", text)))
        # What folds the pages below one of the side bar has no name of its own for those who listen.
        lighter = lighter.replace(
            '<summary><span class="toctree-toggle"',
            '<summary aria-label="Pages below"><span class="toctree-toggle"',
        )
        if lighter != text:
            page.write_text(lighter, encoding="utf8")
    for script in Path(app.outdir, "_static").rglob("*.js"):
        if "vendor" not in script.parts and "mathjax" not in script.parts:
            used |= set(re.findall(r"\bfa-[a-z0-9-]+", script.read_text(encoding="utf8")))
    for place in Path(app.outdir, "_static", "vendor", "fontawesome").glob("*"):
        sheet = place / "css" / "all.min.css"
        fonts = {f: (place / "webfonts" / f"{f}.ttf").read_bytes() for f in FONTS}
        # Sphinx copies the whole sheet at every build; what is cut here is that one.
        sheet.write_text(
            icons(sheet.read_text(encoding="utf8"), used, fonts, more), encoding="utf8"
        )


def setup(app):
    app.connect("config-inited", choose_maths, priority=900)
    app.connect("html-page-context", lighten)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
