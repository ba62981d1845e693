"""What kind of settings a recipe holds, what ablations change, and a random model to train."""

from agents.model.mini import MiniConfig
from train.config.reason import ReasonConfig
from train.config.run import TrainConfig
from train.config.sft import SFTConfig

SHAPE = MiniConfig(
    hidden_size=32, layers=1, heads=2, intermediate_size=32, vision_hidden_size=16, vision_layers=1,
    vision_heads=2, vision_intermediate_size=16, patch_size=8, vocabulary=280,
)  # fmt: skip
MECHANISMS = {
    "vanilla_grpo": {
        "env.frame_budget", "env.reward", "agent.forced_prefix", "algorithm.credit",
    },
    "anchoring_only": {"env.frame_budget"},
    "gating_only": {"env.reward", "agent.forced_prefix", "algorithm.credit"},
}  # fmt: skip


def differences(one, other):
    """Dotted names of settings that differ."""
    found = set()
    for group in ("env", "agent", "algorithm", "selection"):
        left, right = vars(getattr(one, group)), vars(getattr(other, group))
        found |= {f"{group}.{name}" for name in left if left[name] != right[name]}
    return found


def kind_of(recipe):
    """The settings that a packaged recipe holds."""
    kinds = {"sft": SFTConfig, "reason": ReasonConfig}
    return kinds.get(recipe.partition("_")[0], TrainConfig)
