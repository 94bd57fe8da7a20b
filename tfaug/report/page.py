"""Elements of HTML. Text is escaped unless it is `Html` already: names of cases and structures are the user's."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

import tfaug
from tfaug.engine.errors import printable
from tfaug.report import style

MARK = "tfaug report"  # distinguishes our pages from others
WIDEST = 1400  # pixels; wider pictures from files are shrunk
_VOID = frozenset({"img", "input", "meta", "br"})


class Html(str):
    """Text that is HTML."""


def el(name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element.

    Args:
      name: its tag.
      *children: texts, which are escaped; `Html`, which is not; lists of both; None, which is left out.
      **attributes: class_ stands for class, aria_label for aria-label; True gives a bare name, None and False nothing.
    """
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{_escaped(value)}"')
    start = f"<{' '.join(parts)}>"
    return Html(start if name in _VOID else f"{start}{joined(*children)}</{name}>")


def joined(*children: Any) -> Html:
    """Children, as in `el`, one after the other."""
    return Html("".join(_rendered(child) for child in children))


def _rendered(child: Any) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, (list, tuple)):
        return "".join(map(_rendered, child))
    return _escaped(child)


def _escaped(value: Any) -> str:
    return html.escape("\n".join(map(printable, str(value).split("\n"))))


def code(text: Any) -> Html:
    """A name or a flag."""
    return el("code", text)


def section(title: str, *children: Any) -> Html:
    """A section of the page, which the list of contents can link to."""
    return el("section", el("h2", title, id=_anchor(title)), *children)


def facts(rows: Iterable[tuple[str, Any]]) -> Html:
    """A list of terms with their descriptions; those with None are left out."""
    return el("dl", [[el("dt", term), el("dd", text)] for term, text in rows if text is not None], class_="facts")


def key_figures(rows: Iterable[tuple[str, Any, Any]]) -> Html:
    """Large numbers, each with its name, its value, and a small line or None."""
    entries = [
        el("div", el("dt", name), el("dd", value, el("small", small) if small else None)) for name, value, small in rows
    ]
    return el("dl", entries, class_="keys")


def with_minus(number: str) -> str:
    """A number as text, with a minus sign as wide as a plus."""
    return number.replace("-", "\N{MINUS SIGN}")


def table(
    caption: str,
    head: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    strong_last: bool = False,
    texts: Sequence[int] = (),
) -> Html:
    """A table that scrolls in its own box.

    Args:
      caption: what it shows.
      head: names of the columns.
      rows: the first cell is the row's name.
      strong_last: whether the last row stands out.
      texts: columns that hold no numbers; the first never does.
    """
    rows = list(rows)

    def kind(k):
        return "text" if k in texts else None

    lines = [
        el(
            "tr",
            el("th", row[0], scope="row"),
            [el("td", cell, class_=kind(k)) for k, cell in enumerate(row[1:], start=1)],
            class_="strong" if strong_last and n == len(rows) - 1 else None,
        )
        for n, row in enumerate(rows)
    ]
    heads = el("tr", [el("th", cell, scope="col", class_=kind(k)) for k, cell in enumerate(head)])
    inner = el("table", el("thead", heads), el("tbody", lines))
    return el("figure", el("figcaption", caption), scrolled(inner, caption), class_="table")


def scrolled(content: Html, label: str, class_: str = "") -> Html:
    """A box that scrolls sideways by touch or keys, so that the page need not."""
    return el("div", content, class_=f"scroll {class_}".strip(), role="region", aria_label=label, tabindex=0)


def details(title: str, *children: Any) -> Html:
    """Content that is hidden until it is opened."""
    return el("details", el("summary", title), *children)


def picture(file: pathlib.Path, text: str, caption: Any = None) -> Html | None:
    """A picture from a run, in a box that scrolls; None if it is missing or not a picture."""
    try:
        with Image.open(file) as image:
            shown = np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # from Pillow, for a damaged file
        return None
    if shown.shape[1] > WIDEST:
        size = (WIDEST, max(1, round(shown.shape[0] * WIDEST / shown.shape[1])))
        shown = np.array(Image.fromarray(shown).resize(size, Image.Resampling.LANCZOS))
    coarse = np.minimum((shown.astype(np.uint16) + 4) // 8 * 8, 255).astype(np.uint8)  # as `pictures.save_small`
    height, width = shown.shape[:2]
    inner = el("img", src=png(coarse), alt=text, width=width, height=height)
    return el("figure", scrolled(inner, text, "picture"), el("figcaption", caption) if caption else None)


def png(array: np.ndarray) -> str:
    """A data URI of an array [height, width] or [height, width, 3] uint8."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def download(name: str, text: str, label: str) -> Html:
    """A link that saves a text as a file."""
    uri = f"data:text/plain;charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
    return el("a", label, href=uri, download=name)


def whole(title: str, lead: Any, sections: Sequence[Html], titles: Sequence[str]) -> str:
    """The whole page.

    Args:
      title: title of the page.
      lead: what stands above the list of contents.
      sections: its parts.
      titles: titles of the parts that the list of contents names.
    """
    digest = base64.b64encode(hashlib.sha256(style.SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    contents = el("ul", [el("li", el("a", name, href=f"#{_anchor(name)}")) for name in titles])
    head = el(
        "head",
        el("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="generator", content=f"{MARK} {tfaug.__version__}"),
        el("title", title),
        el("style", Html(style.CSS)),
    )
    body = el(
        "body",
        el("header", el("h1", title), lead, el("nav", contents, aria_label="Contents")),
        el("main", *sections),
        el(
            "footer",
            el("p", f"Made by tfaug {tfaug.__version__} from the files of the folder alone; needs no network."),
        ),
        el("script", Html(style.SCRIPT)),
    )
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


def _anchor(title: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in title.lower())
