"""Counts how often the parser walks through a text."""

from __future__ import annotations

from collections import Counter

import pytest

from paravt_env.protocol import parser


def count_parses(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each text is parsed from now on; what was parsed before may be known already."""
    counts: Counter[str] = Counter()
    pattern = parser.TAG_PATTERN

    class Counting:
        def finditer(self, text):
            counts[text] += 1
            return pattern.finditer(text)

        def search(self, text):
            return pattern.search(text)

    monkeypatch.setattr(parser, "TAG_PATTERN", Counting())
    return counts
