"""Pages and links between `docs/` and the rest of the repository, as text.

What `docs_site/hooks.py` tells MkDocs; needs nothing but the standard library. Tests: `pytest
tests/docs/test_site.py`.
"""

from __future__ import annotations

import json
import posixpath
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(\))")
HOME = "README.md"


def home() -> str:
    """README as the first page: links into `docs/` become links between pages."""
    text = (ROOT / HOME).read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/", "](", text).replace('src="docs/', 'src="')
    return re.sub(r"\]\((?!https?:|#)((?:examples|benchmarks)/|[A-Z]+\.md)", r"](../\1", text)


def notebook(path: Path) -> str:
    """A notebook as a page: its text, its code, and what the code printed."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text.replace("](../docs/", "](../"))  # the page is in tutorials/
            continue
        parts.append(f"```python\n{text}\n```")
        said = "".join("".join(one.get("text", "")) for one in cell["outputs"]).strip()
        if said:
            parts.append("Output:\n\n" + textwrap.indent(said, "    "))
    return "\n\n".join(parts) + "\n"


def repository_path(page: str, target: str) -> str:
    """The path in the repository that a link of a page leads to.

    Args:
        page: Path of the page on the site.
        target: Of the link, as written.

    >>> repository_path("a/b.md", "../../examples/x.py"), repository_path("b.md", "c.md")
    ('examples/x.py', 'docs/c.md')
    >>> repository_path("source/R.md", "docs/c.md")
    'docs/c.md'
    """
    own = page.removeprefix("source/")
    folder = posixpath.dirname(own if own != page else f"docs/{page}")
    return posixpath.normpath(posixpath.join(folder, target))


def sources_of(page: str, text: str) -> set[str]:
    """Files outside `docs/` that a page links to."""
    found = {repository_path(page, match[2]) for match in LINK.finditer(text)}
    return {one for one in found if not one.startswith("docs/")}


def is_page(name: str) -> bool:
    """Whether a file is a page of text."""
    return name.endswith(".md")


def relinked(page: str, markdown: str) -> str:
    """The text of a page with every link leading to where the site serves its target."""

    def moved(match: re.Match[str]) -> str:
        target = repository_path(page, match[2])
        served = target.removeprefix("docs/")
        served = served if served != target else f"source/{target}"
        link = posixpath.relpath(served, posixpath.dirname(page) or ".")
        return f"{match[1]}{link}{match[3] or ''}{match[4]}"

    return LINK.sub(moved, markdown)
