"""The sentences that stand in the code: under a field, behind a member, in a docstring.

First step of the reference pages (`docs_site/reference.py`): read from the source, so that they
are written once. Tests: `pytest tests/docs/test_reference.py`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
from enum import Enum
from typing import Any


def of_fields(kind: type) -> dict[str, str]:
    """The sentence of each field of a dataclass: the text under it, or its line in `Attributes:`.

    Fields of base classes are included; the class that says a field last wins.
    """
    said: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if dataclasses.is_dataclass(one):
            said |= _attributes(one.__doc__ or "") | _under_fields(one)
    return {
        field.name: said[field.name] for field in dataclasses.fields(kind) if field.name in said
    }


def of_members(kind: type[Enum]) -> dict[str, str]:
    """The comment of each member of an enumeration."""
    source = inspect.getsource(kind)
    said = re.findall(r"^\s+(\w+) = \(?\s*\"\w+\"  # (.+)$", source, re.MULTILINE)
    return {name: sentence(text) for name, text in said}


def sentence(text: str) -> str:
    r"""One line with a capital and a full stop.

    >>> sentence("its frames were\n    decoded")
    'Its frames were decoded.'
    """
    line = " ".join(text.split())
    line = line[:1].upper() + line[1:]
    return line if line.endswith((".", "!", "?")) else f"{line}."


def first_paragraph(text: str) -> str:
    """The first paragraph of a docstring in one line."""
    return sentence(inspect.cleandoc(text).split("\n\n")[0])


def _under_fields(kind: type) -> dict[str, str]:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    said = {}
    body: list[Any] = getattr(node, "body", [])
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            value = getattr(below, "value", None)
            if isinstance(below, ast.Expr) and isinstance(value, ast.Constant):
                said[field.target.id] = sentence(str(value.value))
    return said


def _attributes(docstring: str) -> dict[str, str]:
    """The entries of a Google docstring's section `Attributes:`."""
    lines = inspect.cleandoc(docstring).splitlines()
    if "Attributes:" not in lines:
        return {}
    said: dict[str, str] = {}
    name = ""
    for line in lines[lines.index("Attributes:") + 1 :]:
        if line and not line.startswith(" "):
            break
        entry = re.fullmatch(r"    (\w+): (.*)", line)
        if entry:
            name, said[entry[1]] = entry[1], entry[2]
        elif name and line:
            said[name] += f" {line.strip()}"
    return {name: sentence(text) for name, text in said.items()}
