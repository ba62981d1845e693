"""The table of terms and the presets: weighted terms, named after what was published.

The environment builds a preset from a recipe's `reward` entry (`from_recipe.py`) and scores each
finished transcript with it (`scoring.py`). Tests: `pytest tests/rewards/test_rewards.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from paravt_env.rewards.terms.answer import Answer, Scorer
from paravt_env.rewards.terms.base import Term
from paravt_env.rewards.terms.format_anchor import FormatAnchor
from paravt_env.rewards.terms.tool_gain import ToolGain

TERMS: dict[str, Callable[..., Term]] = {
    "answer": Answer,
    "format_anchor": FormatAnchor,
    "tool_gain": ToolGain,
}
TAKEN = ("total", "r", "l", "t")
"""No names of terms: the sum, and what Gymnasium's statistics write beside the terms."""


Weighted = tuple[float, Term]
"""How much of a term's value goes into the reward, and the term."""


@dataclass(frozen=True)
class RewardPreset:
    """A reward: the weighted sum of its terms.

    Attributes:
        terms: Weight and term by name, in order of evaluation. `answer` is always there, if only
            with weight 0, as accuracy is measured with it, and comes first. Another term of weight
            0 is not computed; its options wait for a recipe that gives it weight.
    """

    terms: Mapping[str, Weighted]

    def __post_init__(self) -> None:
        """Check names and weights."""
        object.__setattr__(self, "terms", {"answer": (0.0, Answer()), **self.terms})
        if not isinstance(self.terms["answer"][1], Answer):
            raise ValueError("the term answer is the built-in one: a scorer gives it its value")
        for name, (weight, term) in self.terms.items():
            if not name.isidentifier() or name.startswith("_") or name in TAKEN:
                raise ValueError(
                    f"{name!r} cannot be the name of a reward term: take letters, digits and "
                    f"underscores, a letter first, and none of {', '.join(TAKEN)}"
                )
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise ValueError(f"the weight of {name} must be a number, not {weight!r}")
            if not abs(weight) < float("inf"):
                raise ValueError(f"the weight of {name} must be finite, not {weight!r}")
            if not callable(term):
                raise ValueError(
                    f"reward term {name!r} must be a dataclass whose call, term(transcript), gives "
                    f"its value; it is {term!r}"
                )

    @property
    def used(self) -> dict[str, Term]:
        """The terms that are computed: `answer`, and those with a weight."""
        return {
            name: term for name, (weight, term) in self.terms.items() if weight or name == "answer"
        }

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every term that is computed."""
        return {name: self.terms[name][0] for name in self.used}

    @property
    def scorer(self) -> Scorer | None:
        """What supplies the value of `answer` in place of the built-in comparison."""
        answer = self.terms["answer"][1]
        return answer.scorer if isinstance(answer, Answer) else None


PRESETS: dict[str, RewardPreset] = {
    # PARA-GRPO, arXiv 2605.20342: R = R_acc + w_fmt R_fmt + R_tool, w_fmt = 1. On rollouts whose
    # calls all run. Elsewhere the modules of the terms say what differs and why: the forced prefix
    # is scored (defect 10), forged and repeated tags are not (11, 17), a call that did not run
    # earns nothing and success takes more than any overlap (12, 18). The cap at 1 is the published
    # one (15); `rescale` does without.
    "paravt": RewardPreset(
        {
            "answer": (1.0, Answer()),
            "format_anchor": (1.0, FormatAnchor()),
            "tool_gain": (1.0, ToolGain()),
        }
    ),
    # Ours: the same, but a call is paid for what it makes knowable, not for having run.
    "paravt_necessity": RewardPreset(
        {
            "answer": (1.0, Answer()),
            "format_anchor": (1.0, FormatAnchor()),
            "tool_gain": (1.0, ToolGain(gain="necessity")),
        }
    ),
    # Its GRPO baseline: the base format term and R_tool stay, the anchor goes.
    "vanilla": RewardPreset(
        {
            "answer": (1.0, Answer()),
            "format_anchor": (1.0, FormatAnchor(anchor=False)),
            "tool_gain": (1.0, ToolGain()),
        }
    ),
    # LongVT, arXiv 2511.20785: R = R_acc + R_fmt + IoU of the last crop with the gold segment,
    # R_acc judged in {0, 0.5, 1}, R_fmt in {0, 1}. No judge, no open answers: never token F1 in
    # its place (defect 16).
    "longvt": RewardPreset(
        {
            "answer": (1.0, Answer(open_metric="judge")),
            "format_anchor": (1.0, FormatAnchor(form="binary")),
            "tool_gain": (1.0, ToolGain(gain="evidence", evidence="iou")),
        }
    ),
    # LongVILA-R1, arXiv 2507.07966: R = 0.9 acc + 0.1 format; no tool, so nothing for using it.
    "longvila": RewardPreset(
        {
            "answer": (0.9, Answer()),
            "format_anchor": (0.1, FormatAnchor(form="binary")),
            "tool_gain": (0.0, ToolGain()),
        }
    ),
    # PyVision-RL, arXiv 2602.20739: R = R_acc + 0.1 n_calls 1[R_acc = 1]; only calls that ran
    # count (defect 18).
    "pyvision": RewardPreset(
        {
            "answer": (1.0, Answer()),
            "format_anchor": (0.0, FormatAnchor(form="binary")),
            "tool_gain": (1.0, ToolGain(gain="accumulative")),
        }
    ),
}
