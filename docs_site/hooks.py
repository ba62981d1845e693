"""MkDocs hooks: the home page from README, reference pages from the code, links to the sources.

A page may link to any file of the repository, as it does when it is read there: `../examples/x.py`.
On the site such a file is served under `source/`. A link to a file that is not there ends the
build. Used by `mkdocs.yml`; command: `make docs`. Tests: `pytest tests/docs/test_site.py`.
"""

from __future__ import annotations

from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from docs_site.links import ROOT, home, is_page, notebook, relinked, sources_of
from docs_site.reference import PAGES


def on_files(files: Files, config: Any) -> Files:
    """Add the home page, the reference pages and the notebooks, then the sources they link to."""
    added = {"index.md": home()}
    added |= {f"reference/{name}.md": make() for name, make in PAGES.items()}
    added |= {
        f"tutorials/{path.stem}.md": notebook(path)
        for path in sorted((ROOT / "examples").glob("*.ipynb"))
    }
    for name, text in added.items():
        files.append(File.generated(config, name, content=text))
    waiting = {file.src_uri: file.content_string for file in files if is_page(file.src_uri)}
    known = set(waiting)
    while waiting:
        page, text = waiting.popitem()
        for source in sorted(sources_of(page, text)):
            path, name = ROOT / source, f"source/{source}"
            if not path.is_file():
                raise PluginError(f"{page} links to {source}, which is not a file")
            if name not in known:
                known.add(name)
                files.append(File.generated(config, name, abs_src_path=str(path)))
                if is_page(name):
                    waiting[name] = path.read_text(encoding="utf-8")
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links between `docs/` and the rest of the repository lead to the copies under `source/`."""
    return relinked(page.file.src_uri, markdown)
