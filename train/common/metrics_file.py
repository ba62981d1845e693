"""The file of a run's steps, `metrics.jsonl`: its name, and how it is read.

Written by `train/loop/metrics.py`; read by reports, studies and diagnostics.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = "metrics.jsonl"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The steps logged in a run's folder; a line cut short by a crash is left out."""
    path = folder / FILE
    if not path.is_file():
        return []
    steps = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            steps.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return steps
