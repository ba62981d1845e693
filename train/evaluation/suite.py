"""Suites of published sets: which they are, what was published on them, and how we measure.

Beside `train.evaluation.measure`, which plays each set of a suite; here are the facts. `paravt eval
--suite paravt7 --evaluation.suite_root DATA` looks for one folder a set, named as in `TASKSETS`,
prints the paper's numbers beside ours, and says in what the two protocols differ. Tests: `pytest
tests/evaluation/test_suite.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from train.config.run import TrainConfig
from train.config.suites import MAX_PIXELS, Entry
from train.evaluation.bootstrap import Interval
from train.evaluation.scores import EvalReport


@dataclass(frozen=True)
class SetOutcome:
    """What became of one set: its report, or why there is none."""

    entry: Entry
    report: EvalReport | None = None
    error: str = ""

    @property
    def failed(self) -> bool:
        """Whether a row, or the whole set, could not be evaluated."""
        return self.report is None or self.report.failed

    @property
    def ours(self) -> Interval | None:
        """Our value of the published metric, from 0 to 1."""
        if self.report is None:
            return None
        if self.entry.metric == "macro":
            return self.report.macro()
        if self.entry.metric == "mIoU":
            return self.report.grounding()["mIoU"]
        return self.report.accuracy()


@dataclass(frozen=True)
class SuiteReport:
    """A suite as it was measured."""

    name: str
    outcomes: Sequence[SetOutcome]
    differences: Sequence[str] = field(default=())

    @property
    def failed(self) -> bool:
        """Whether any set or row could not be evaluated."""
        return any(outcome.failed for outcome in self.outcomes)

    def summary(self) -> dict[str, Any]:
        """Plain data: for each set our value, the published ones and the errors."""
        sets = {}
        for outcome in self.outcomes:
            item = outcome.ours
            sets[outcome.entry.name] = {
                "metric": outcome.entry.metric,
                "ours": None if item is None else _points(item),
                "published": dict(outcome.entry.published),
                "errors": dict(outcome.report.errors) if outcome.report else {},
                "blind_errors": dict(outcome.report.blind_errors) if outcome.report else {},
                "error": outcome.error,
            }
        return {"suite": self.name, "sets": sets, "differences": list(self.differences)}

    def table(self) -> str:
        """The published numbers beside ours, and the differences, as text."""
        systems = list(dict.fromkeys(name for o in self.outcomes for name in o.entry.published))
        lines = [
            f"{'set':22}{'metric':>9}{'rows':>6}{'errors':>8}  {'ours':20}"
            + "".join(f"{name:>{len(name) + 2}}" for name in systems)
        ]
        for outcome in self.outcomes:
            item, report, entry = outcome.ours, outcome.report, outcome.entry
            ours = (
                "-"
                if item is None
                else "{mean:.1f} [{low:.1f}, {high:.1f}]".format(**_points(item))
            )
            rows = "-" if item is None else str(item.rows)
            errors = "-" if report is None else str(sum(report.errors.values()))
            published = "".join(
                f"{entry.published.get(name, float('nan')):{len(name) + 2}.1f}" for name in systems
            )
            head = f"{entry.name:22}{entry.metric:>9}{rows:>6}{errors:>8}"
            lines.append(f"{head}  {ours:20}{published}")
        lines += [
            f"{o.entry.name}: {sum(o.report.blind_errors.values())} errors without frames"
            for o in self.outcomes
            if o.report is not None and o.report.blind_errors
        ]
        lines += [f"not evaluated: {o.entry.name}: {o.error}" for o in self.outcomes if o.error]
        lines.append("differences from the published protocol:")
        return "\n".join([*lines, *(f"- {text}" for text in self.differences)])


def _points(item: Interval) -> dict[str, float]:
    return {name: round(100 * getattr(item, name), 2) for name in ("mean", "low", "high")}


def differences(config: TrainConfig) -> Iterator[str]:
    """In what this evaluation differs from the published one (arXiv 2605.20342)."""
    env, agent, settings = config.env, config.agent, config.evaluation
    budgets = settings.sweep_frames if settings.sweep else settings.frame_budgets
    for what, ours, published in (
        ("mode", settings.mode, "tools"),
        ("overview frames", list(budgets), [64]),
        ("turns that may call", env.max_turns, 3),
        ("calls a turn", env.max_crops, 5),
        ("forced-answer turn", env.force_answer, True),
        ("frames of a crop", env.frames_per_crop, 16),
        ("frames a second in a crop", env.crop_fps, 1.0),
        ("temperature", settings.temperature, 0.0),
        ("tokens a turn", agent.max_new_tokens, 2048),
        ("tokens of a sub-agent", agent.subagent_tokens, 512),
        ("evidence", agent.evidence or env.evidence, "subagent"),
        ("tasks of each set", settings.tasks or "all", "all"),
        ("tokens of the forced answer", agent.answer_tokens, 64),
        ("untagged answers are read", settings.untagged is not False, True),
        ("forced text before the forced answer", agent.answer_prefix, False),
        ("text that every other turn is made to start with", agent.forced_prefix, ""),
    ):
        if ours != published:
            yield f"{what}: {ours}; published: {published}"
    policy = settings.policy or agent.checkpoint
    yield f"policy: {settings.chat.model or policy if policy == 'openai' else policy}"
    height, width = env.frame_size
    too_many = ", more than that" if height * width > MAX_PIXELS else ""
    yield (
        f"frames are scaled to {height} x {width} pixels{too_many}; published: at most "
        f"{MAX_PIXELS} pixels at the video's own aspect"
    )
    yield f"a crop is at most {env.max_crop_seconds:g} s long; published: no limit is stated"
    yield (
        "options: a letter in any usual form, or an option's text; an answer that names two, or "
        "takes its letter back, is wrong; published: the first capital A to J in the text"
    )
    yield (
        "spans: the first pair of times that is joined as start and end, units read; published: "
        "the first pair in one of three patterns, else the first two numbers"
    )
    yield (
        "calls: well-formed ones run"
        + (", others after repairs (counted)" if env.lenient_calls else "")
        + "; published: times such as 01:30 are read and windows that are none run from 0"
    )
    reward = env.reward if isinstance(env.reward, Mapping) else {}
    scorer = "an LLM judge" if "judge" in reward else "token F1 with the gold answer"
    yield f"open questions (MMVU) are scored by {scorer}; published: the scorer is not stated"
    yield (
        "MLVU is the mean over its tasks (the mean over questions is in its report); published: "
        "which mean is not stated"
    )
    yield "every row counts, also one whose video or reply failed (score 0)"
