"""What the docs promise: README's length, the picture, the navigation, the links, the language."""

import re
from pathlib import Path

import pytest
import yaml

from docs_site.architecture import picture
from docs_site.links import home, relinked, repository_path, sources_of
from docs_site.reference import PAGES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OTHER_PROSE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
PAGES_THERE = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def navigation():
    (text,) = [(ROOT / "mkdocs.yml").read_text(encoding="utf-8")]
    sections = yaml.safe_load(text)["nav"]
    entries = [entry for section in sections for entry in section.values()]
    return [
        page
        for entry in entries
        for page in ([entry] if isinstance(entry, str) else [p for e in entry for p in e.values()])
    ]


def test_the_readme_is_read_in_one_go():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 900
    assert "docs/architecture.svg" in text and "make demo" in text and "make test" in text
    own_agent = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert len([line for line in own_agent.splitlines() if line.strip()]) <= 10


def test_the_picture_is_what_its_script_draws():
    assert (DOCS / "architecture.svg").read_text(encoding="utf-8") == picture()


def test_every_page_is_in_the_navigation_once():
    made = [f"reference/{name}.md" for name in PAGES]
    notebooks = [f"tutorials/{path.stem}.md" for path in (ROOT / "examples").glob("*.ipynb")]
    assert sorted(navigation()) == sorted(["index.md", *made, *notebooks, *PAGES_THERE])


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{name}" for name in PAGES_THERE)])
def test_every_link_of_a_page_leads_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    made = {f"docs/reference/{name}.md" for name in PAGES}
    for target in re.findall(r"\]\((?!https?:|#)([^)\s#]+)", text):
        path = (ROOT / page).parent / target
        assert path.resolve().relative_to(ROOT).as_posix() in made or path.exists(), target


@pytest.mark.parametrize(
    "page", [*OTHER_PROSE, *(f"docs/{name}" for name in PAGES_THERE)]
)
def test_lines_of_prose_are_short(page):
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    prose = [line for line in lines if not line.startswith(("|", "{"))]
    assert [line for line in prose if len(line) > 120] == []


def test_links_into_and_out_of_the_repository():
    assert relinked("a/b.md", "[x](../../examples/x.py)") == "[x](../source/examples/x.py)"
    assert relinked("b.md", "[c](c.md#d)") == "[c](c.md#d)"
    assert relinked("source/R.md", "[c](docs/c.md)") == "[c](../c.md)"
    assert relinked("b.md", "[w](https://x.org/a) [h](#h)") == "[w](https://x.org/a) [h](#h)"
    assert repository_path("source/R.md", "benchmarks/x.txt") == "benchmarks/x.txt"
    assert sources_of("b.md", "[x](../LICENSE) [c](c.md)") == {"LICENSE"}


def test_the_home_page_is_the_readme_seen_from_docs():
    text = home()
    assert "](architecture.svg)" in text and "](docs/" not in text
    assert sources_of("index.md", text) >= {"CONTRIBUTING.md", "examples/grpo_in_one_file.py"}
