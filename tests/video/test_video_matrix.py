"""The table of containers, codecs and encoders: its file, its copy in the manual, its judgement."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def matrix(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import video_matrix

    yield video_matrix
    del sys.modules["video_matrix"]


def rows(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.count("|") == 7]


def test_the_manual_shows_the_table_as_it_was_measured(matrix):
    measured = rows(ROOT / "benchmarks" / "results" / "video_matrix.md")
    assert [line for line in rows(ROOT / "docs" / "video.md") if line in measured] == measured
    files = [line.split("|")[1:6] for line in measured[2:]]
    assert len(files) >= 60
    assert [[cell.strip() for cell in file[:3]] for file in files] == [
        [row.container, row.codec, row.about] for row in matrix.rows()
    ]
    assert {file[4].strip() for file in files if "refused" not in file[3]} == {"0"}


@pytest.mark.parametrize("container, about", [("mp4", "B pictures"), ("avi", "packed B pictures")])
def test_the_comparison_sees_a_frame_that_is_off_by_one(matrix, tmp_path, container, about):
    row = next(r for r in matrix.rows() if (r.container, r.about) == (container, about))
    path, starts = row.write(tmp_path / f"a.{container}")
    right = matrix.compare(row, (path, starts), [1])
    assert (right.compared, right.wrong, right.refused) == (389, 0, "")
    late = matrix.compare(row, (path, np.concatenate([[0.0], starts[:-1]])), [1])
    assert late.wrong > 300
