"""The LLM judge's settings: plain data, checked when the environment is made.

`make_preset` builds them from a recipe's `reward: {judge: {...}}`. Tests: `pytest
tests/rewards/test_judge.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, ClassVar

from paravt_env.common.http.client import ClientSettings
from paravt_env.common.names import known_name
from paravt_env.task import TASK_KINDS, TaskKind


@dataclass(frozen=True)
class JudgeSettings(ClientSettings):
    """How the judge is asked; `ClientSettings` has the key, retries and prices."""

    role: ClassVar[str] = "judge"
    longest_pause: ClassVar[float] = 30.0
    jitter: ClassVar[float] = 0.0

    url: str
    """Base address of an OpenAI-style endpoint, such as http://localhost:8000/v1."""
    model: str
    """The model's name there."""
    _: KW_ONLY
    timeout: float = 30.0
    """Seconds that one request may take, from connection to last byte."""
    retries: int = 3
    """Requests after a first one that failed or gave no verdict."""
    kinds: tuple[TaskKind, ...] = ("open",)
    """Task kinds that are judged; the others keep their own metric."""
    concurrency: int = 8
    """Answers of one environment step that are judged at the same time."""
    max_tokens: int = 512
    """Tokens of a reply."""
    max_answer_chars: int = 4000
    """Characters of an answer that are sent; the judge is told how many more there were."""
    response_format: str = "json_schema"
    """`json_schema`, `json_object`, or `text` for endpoints that know neither."""
    log: str = ""
    """Path of a JSONL file that gets a line for each judged answer; "" for none."""

    def __post_init__(self) -> None:
        """Check types and ranges."""
        super().__post_init__()
        object.__setattr__(self, "kinds", tuple(self.kinds))
        for kind in self.kinds:
            known_name("judge kind", kind, TASK_KINDS)
        if not str(self.url).startswith(("http://", "https://")):
            raise ValueError(f"judge url must start with http:// or https://, not {self.url!r}")
        if not self.model or not isinstance(self.model, str):
            raise ValueError("judge model must name a model of the endpoint")
        formats = ("json_schema", "json_object", "text")
        known_name("judge response_format", self.response_format, formats)
        for name in ("concurrency", "max_tokens", "max_answer_chars"):
            self.check(name, 1, whole=True)


def make_judge_settings(spec: Any) -> JudgeSettings:
    """Build the settings from a recipe's mapping.

    Raises:
        ValueError: A field that is missing, unknown (the nearest one is named) or out of range.
    """
    if not isinstance(spec, Mapping):
        raise ValueError(f"judge must be a mapping with url and model, not {spec!r}")
    names = [field.name for field in fields(JudgeSettings)]
    for name in spec:
        known_name("judge setting", name, names)
    for name in ("url", "model"):
        if name not in spec:
            raise ValueError(f"judge needs {name}: the endpoint's address and a model's name there")
    return JudgeSettings(**spec)
