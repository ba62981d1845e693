"""The frame of every page of the viewer, and the small pieces that they share.

Markup is made here and nowhere in the browser; whatever came from a model, a data set or a file is
escaped. There is no inline script and no inline style: the content security policy forbids both.
Tests: `pytest tests/viewer/test_pages.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import urlencode

from train.report.page import STYLE

ASSETS = Path(__file__).with_name("assets")
HOME = "/?all=1"
LINKS = {HOME: "Runs", "/compare": "Compare", "/play": "Play"}


def link(path: str, **query: object) -> str:
    """A link's target, escaped for an attribute; what is None is left out.

    >>> link("/run", run="a b&c", step=None)
    '/run?run=a+b%26c'
    """
    given = {name: str(value) for name, value in query.items() if value is not None}
    return escape(f"{path}?{urlencode(given)}" if given else path)


def anchor(text: str, path: str, **query: object) -> str:
    """A link with its text."""
    return f'<a href="{link(path, **query)}">{escape(text)}</a>'


TO_RUNS = anchor("Runs", "/", all=1)
"""The first link of every page's path."""


def document(
    title: str, body: Sequence[str], scripts: Sequence[str] = (), here: str = "", wide: bool = False
) -> str:
    """A whole page.

    Args:
        title: Of the window.
        body: Its parts, as markup.
        scripts: Names of the scripts of the assets that it needs.
        here: The entry of `LINKS` that it belongs to.
        wide: Whether it takes the width of the window.
    """
    mark = {path: " aria-current=page" if path == here else "" for path in LINKS}
    entries = "".join(f'<a href="{path}"{mark[path]}>{name}</a>' for path, name in LINKS.items())
    loaded = "".join(f'<script src="/assets/{name}" defer></script>' for name in scripts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)} · ParaVT</title>"
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="/assets/view.css">'
        f"{loaded}</head><body>"
        '<a class="skip" href="#content">Skip to the content</a>'
        f'<nav aria-label="Pages"><b>ParaVT</b>{entries}</nav>'
        f'<main id="content"{" class=wide" if wide else ""}>{"".join(body)}</main></body></html>\n'
    )


def crumbs(*parts: str) -> str:
    """Where a page is, as links that are markup already."""
    return f'<p class="crumbs">{" / ".join(parts)}</p>'


def select(name: str, label: str, options: Mapping[str, str], chosen: str) -> str:
    """A labelled choice of a form."""
    inside = "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>'
        f"{escape(text)}</option>"
        for value, text in options.items()
    )
    return f'<label>{escape(label)} <select name="{escape(name)}">{inside}</select></label>'


def verdict(correct: float, error: str = "") -> str:
    """A score in words and in a colour."""
    if error:
        return "<span class=wrong>not scored</span>"
    name = "correct" if correct > 0.5 else "wrong"
    return f"<span class={name}>{'right' if correct > 0.5 else 'wrong'} {correct:.2f}</span>"


def calls(count: int) -> str:
    """A number of calls in words.

    >>> calls(1), calls(2)
    ('1 call', '2 calls')
    """
    return f"{count} call{'' if count == 1 else 's'}"


def assets() -> dict[str, tuple[bytes, str]]:
    """Name -> content and type of the files that pages load; nothing else is served by name."""
    kinds = {".css": "text/css", ".js": "text/javascript"}
    found = {
        path.name: (path.read_bytes(), kinds[path.suffix])
        for path in sorted(ASSETS.iterdir())
        if path.suffix in kinds
    }
    own, kind = found["view.css"]
    found["view.css"] = STYLE.read_bytes() + own, kind
    return found
