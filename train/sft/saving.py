"""The policy of a cold start on disk: whole files only, at every moment.

Last stop of `paravt sft`, after each stage and where the settings ask for it. Tests: `pytest
tests/sft/test_sft.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from agents.model.vlm import VisionLanguageModel
from paravt_env.common.files import flush

LOSSES = "sft.jsonl"
"""The losses of a cold start, beside its policy."""


def replace_policy(
    folder: Path, vlm: VisionLanguageModel, records: Sequence[dict[str, Any]]
) -> None:
    """Write the policy and the losses into a draft, then put its files where the old ones are.

    Each has its name only when it is whole. Of a policy in several files the index that names them
    goes first and comes last, so that no mixture of two can be loaded.

    Raises:
        OSError: It could not be written (a full disk); what was there before stays.
    """
    draft = folder / ".partial"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        vlm.save(draft)
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (draft / LOSSES).write_text(lines, encoding="utf-8")
        flush(draft)
        for path in folder.glob("model*.safetensors*"):
            if path.name == SAFE_WEIGHTS_INDEX_NAME or not (draft / path.name).exists():
                path.unlink()
        for path in sorted(draft.iterdir(), key=lambda path: path.name == SAFE_WEIGHTS_INDEX_NAME):
            path.replace(folder / path.name)
        flush(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
