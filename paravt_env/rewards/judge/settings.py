"""The LLM judge's settings: plain data, checked when the environment is made.

`make_preset` builds them from a recipe's `reward: {judge: {...}}`. A key is never part of them:
they name the environment variable that holds it, because a run saves its settings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from paravt_env.common.names import known_name
from paravt_env.task import TASK_KINDS, TaskKind

LONGEST_PAUSE = 30.0


@dataclass(frozen=True)
class JudgeSettings:
    """How the judge is asked.

    Attributes:
        url: Base address of an OpenAI-style endpoint, such as http://localhost:8000/v1.
        model: The model's name there.
        key_variable: Environment variable that holds the key; "" for an endpoint that needs none.
        kinds: Task kinds that are judged; the others keep their own metric.
        timeout: Seconds that one request may take, from connection to last byte.
        retries: Requests after a first one that failed.
        backoff: Seconds before the first retry; doubles with each, up to 30.
        concurrency: Answers of one environment step that are judged at the same time.
        max_tokens: Tokens of a reply.
        max_answer_chars: Characters of an answer that are sent; the judge is told how many more
            there were.
        response_format: `json_schema`, `json_object`, or `text` for endpoints that know neither.
        prompt_price: Price of a million prompt tokens, for the logged cost.
        completion_price: The same for completion tokens.
        log: Path of a JSONL file that gets a line for each judged answer; "" for none.
        extra: Further fields of the request; null removes one that is sent by default.
    """

    url: str
    model: str
    key_variable: str = ""
    kinds: tuple[TaskKind, ...] = ("open",)
    timeout: float = 30.0
    retries: int = 3
    backoff: float = 1.0
    concurrency: int = 8
    max_tokens: int = 512
    max_answer_chars: int = 4000
    response_format: str = "json_schema"
    prompt_price: float = 0.0
    completion_price: float = 0.0
    log: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check types and ranges."""
        object.__setattr__(self, "kinds", tuple(self.kinds))
        for kind in self.kinds:
            known_name("judge kind", kind, TASK_KINDS)
        if not str(self.url).startswith(("http://", "https://")):
            raise ValueError(f"judge url must start with http:// or https://, not {self.url!r}")
        if not self.model or not isinstance(self.model, str):
            raise ValueError("judge model must name a model of the endpoint")
        formats = ("json_schema", "json_object", "text")
        known_name("judge response_format", self.response_format, formats)
        least = {"retries": 0, "concurrency": 1, "max_tokens": 1, "max_answer_chars": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < bound:
                raise ValueError(f"judge {name} must be a whole number of at least {bound}")
        for name in ("timeout", "backoff", "prompt_price", "completion_price"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value < float("inf") or (name == "timeout" and not value):
                raise ValueError(f"judge {name} must be a number of 0 or more, not {value!r}")
        if not isinstance(self.extra, Mapping):
            raise ValueError(f"judge extra must map fields to values, not {self.extra!r}")

    def key(self) -> str:
        """The endpoint's key.

        Raises:
            ValueError: `key_variable` is not set.
        """
        if not self.key_variable:
            return ""
        if not os.environ.get(self.key_variable):
            raise ValueError(
                f"the judge's key is read from the environment variable {self.key_variable}, which "
                'is not set: export it, or give key_variable="" for an endpoint without keys'
            )
        return os.environ[self.key_variable]

    def pauses(self) -> list[float]:
        """Seconds before each retry.

        >>> JudgeSettings("http://localhost/v1", "m", retries=3, backoff=0.5).pauses()
        [0.5, 1.0, 2.0]
        """
        return [min(self.backoff * 2**n, LONGEST_PAUSE) for n in range(self.retries)]


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
