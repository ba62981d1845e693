"""Who imports whom: the arrows between the files of a source tree, read without running it.

Nothing here knows this project's rooms: they are in `rooms.py`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

When = Literal["loaded", "called", "typed", "named"]
"""`loaded`: with the file. `called`: in a function. `typed`: for the type checker alone.
`named`: a text "module:name" that is opened later."""


@dataclass(frozen=True)
class Arrow:
    """One import: the module that holds it, its line, and the module that it names."""

    source: str
    line: int
    target: str
    when: When


def without_main(tree: ast.Module) -> ast.Module:
    """A module without its `if __name__ == "__main__"` block."""
    main = "__name__ == '__main__'"
    body = [n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == main)]
    return ast.Module(body=body, type_ignores=[])


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str, tuple[str, ...], When]]:
    """Line, module, names taken from it and moment of each import; `package` is the file's own."""
    yield from _below(tree, package, "loaded")


def _below(
    node: ast.AST, package: str, when: When
) -> Iterator[tuple[int, str, tuple[str, ...], When]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and when == "loaded":
        when = "called"
    if isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING":
        for child in node.body:
            yield from _below(child, package, "typed")
        for child in node.orelse:
            yield from _below(child, package, when)
        return
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield node.lineno, alias.name, (), when
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
        yield node.lineno, base, tuple(alias.name for alias in node.names), when
    elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
        for given in node.args[:1]:
            if isinstance(given, ast.Constant) and isinstance(given.value, str):
                yield node.lineno, given.value, (), when
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        module, colon, name = node.value.partition(":")
        if colon and name.isidentifier() and all(p.isidentifier() for p in module.split(".")):
            yield node.lineno, module, (), "named"
    for child in ast.iter_child_nodes(node):
        yield from _below(child, package, when)


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


class SourceTree:
    """The files of some packages and the arrows between them.

    Attributes:
        files: Path of each module by its dotted name; a package's is its `__init__.py`.
        arrows: Every import of every file, of our modules and of others'.
    """

    def __init__(self, texts: Mapping[str, str], doors: tuple[str, ...] = ()) -> None:
        """Take the texts of files by path; the main block of a door is not looked at."""
        self.files = {_dotted(path): path for path in texts}
        self.arrows: list[Arrow] = []
        for path, text in sorted(texts.items()):
            tree = ast.parse(text, path)
            module = _dotted(path)
            package = module if path.endswith("__init__.py") else module.rpartition(".")[0]
            found = imports(without_main(tree) if path in doors else tree, package)
            for line, base, names, when in found:
                inner = {f"{base}.{name}" for name in names} & self.files.keys()
                # a name that is no file is looked for in the package itself
                whole = {base} if len(inner) < len(names) or not names else set()
                self.arrows += [Arrow(module, line, t, when) for t in sorted(inner | whole)]

    @classmethod
    def read(cls, root: Path, packages: tuple[str, ...], doors: tuple[str, ...]) -> SourceTree:
        """The packages under a folder."""
        paths = [path for name in packages for path in sorted((root / name).rglob("*.py"))]
        texts = {p.relative_to(root).as_posix(): p.read_text(encoding="utf-8") for p in paths}
        return cls(texts, doors)

    def place(self, arrow: Arrow) -> str:
        """Where an import stands: path and line."""
        return f"{self.files[arrow.source]}:{arrow.line}"

    def runs(self, arrow: Arrow) -> set[str]:
        """Our modules that an import runs: its target and the packages that it enters."""
        parts = arrow.target.split(".")
        entered = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
        own = {m for m in entered if f"{arrow.source}.".startswith(f"{m}.")} - {arrow.target}
        return (entered - own) & self.files.keys()

    @cached_property
    def edges(self) -> dict[str, dict[str, Arrow]]:
        """Of each module, the modules that it needs at any moment, and the first such arrow."""
        edges: dict[str, dict[str, Arrow]] = {module: {} for module in self.files}
        for arrow in self.arrows:
            if arrow.when != "named":
                for target in self.runs(arrow):
                    edges[arrow.source].setdefault(target, arrow)
        return edges

    @cached_property
    def loads(self) -> dict[str, set[str]]:
        """Top-level names and our modules that importing a module loads, itself included."""
        direct: dict[str, set[str]] = {module: set() for module in self.files}
        for arrow in self.arrows:
            if arrow.when == "loaded":
                found = self.runs(arrow) or {arrow.target.split(".")[0]}
                direct[arrow.source] |= found
        return {module: _reached(module, direct) for module in self.files}

    def circles(self) -> list[tuple[set[str], list[Arrow]]]:
        """Each set of files that need each other, with a shortest circle through some of them."""
        needs = {module: set(targets) for module, targets in self.edges.items()}
        reached = {module: _reached(module, needs) for module in needs}
        found, seen = [], set()
        for module in sorted(needs):
            tied = {other for other in reached[module] if module in reached[other]}
            if module not in seen and (len(tied) > 1 or module in needs[module]):
                circles = [self._circle(one, tied) for one in sorted(tied)]
                found.append((tied, min(circles, key=len)))
            seen |= tied
        return found

    def _circle(self, start: str, tied: set[str]) -> list[Arrow]:
        """The shortest way from a file back to it, through files that are tied to it."""
        waiting: list[tuple[str, list[Arrow]]] = [(start, [])]
        seen: set[str] = set()
        for module, path in waiting:
            for target, arrow in self.edges[module].items():
                if target == start:
                    return [*path, arrow]
                if target in tied - seen:
                    seen.add(target)
                    waiting.append((target, [*path, arrow]))
        raise AssertionError(f"{start} is on no circle")


def _reached(start: str, arrows: Mapping[str, set[str]]) -> set[str]:
    reached, waiting = {start}, [start]
    while waiting:
        new = arrows.get(waiting.pop(), set()) - reached
        reached |= new
        waiting += new
    return reached


def _dotted(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
