"""A policy of Stable-Baselines3: PPO with a small CNN that acts on arrays, and never writes a word.

It learns on `ArrayObservation(ArrayAction(env))` and then plays like any agent: it sees the
observations of the vector environment, encodes them as the wrapper did, and turns its choices into
actions, so that `paravt eval` measures it as it measures an LMM. It needs `pip install
'paravt[sb3]'`; train one with `python examples/sb3_ppo.py` (docs/sb3.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from safetensors.torch import load, save
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecTransposeImage
from torch import Tensor, nn

from agents.base import Decision
from paravt_env.common.files import write_whole
from paravt_env.spaces import unbatch
from paravt_env.vector import LongVideoVectorEnv
from paravt_env.wrappers.arrays import ArrayCodec, choices_to_action

QUESTION = ("family", "words", "options", "must_answer")
"""Entries of an observation that say what is asked."""
WEIGHTS, ABOUT = "policy.safetensors", "sb3.json"


class FrameExtractor(BaseFeaturesExtractor):
    """A CNN reads each frame; the question is compared with every frame, as in attention.

    Scores of a frame are scalar products of its features with queries made of the question (arXiv
    1706.03762, without the softmax). They are kept frame by frame, so that the policy can tell
    *where* what is asked for is seen; the largest of each feature over all frames says *what* is.

    Args:
        observation_space: That of `ArrayObservation`, images with their channels first.
        width: Features of a frame.
        heads: Queries, and so scores of each frame.
    """

    def __init__(self, observation_space: spaces.Dict, width: int = 64, heads: int = 4) -> None:
        self.frames = observation_space["window"].shape[0]  # type: ignore[index]
        asked = sum(spaces.flatdim(observation_space[key]) for key in QUESTION)
        super().__init__(observation_space, (self.frames + 1) * heads + 2 * width)
        _, height, columns = observation_space["frames"].shape  # type: ignore[misc]
        self.cnn = nn.Sequential(
            nn.Conv2d(3, 24, 4, stride=4),
            nn.ReLU(),
            nn.Conv2d(24, 32, 2, stride=2),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            flat = self.cnn(torch.zeros(1, 3, height // self.frames, columns)).shape[1]
        self.look = nn.Linear(flat, width)
        self.question = nn.Linear(asked, width)
        self.queries = nn.Linear(asked, heads * width)

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Arrays of B rows -> features (B, (F + 1) * heads + 2 * width)."""
        shown = observations["window"] >= 0  # (B, F)
        frames = observations["frames"].unflatten(2, (self.frames, -1)).transpose(1, 2)
        asked = torch.cat([observations[key].flatten(1) for key in QUESTION], 1)
        found = torch.relu(self.look(self.cnn(frames[shown])))
        grid = found.new_zeros(*shown.shape, found.shape[1])
        grid[shown] = found
        queries = self.queries(asked).unflatten(1, (-1, found.shape[1]))  # (B, heads, width)
        scores = grid @ queries.transpose(1, 2) / found.shape[1] ** 0.5  # (B, F, heads)
        question = torch.relu(self.question(asked))
        return torch.cat([scores.flatten(1), scores.amax(1), grid.amax(1), question], 1)


POLICY: dict[str, Any] = {
    "features_extractor_class": FrameExtractor,
    "net_arch": {"pi": [], "vf": [64]},  # scores reach the choices unmixed
}
"""Keyword arguments of the policy, the same when it learns and when it is loaded."""


class SB3Agent:
    """Plays with an SB3 policy over arrays. Of a task the policy sees the question's family alone.

    Args:
        policy: Anything with SB3's `predict` and spaces: a policy or a whole model.
        codec: The vocabulary it was trained with.
        env: The environment it will play in.
        deterministic: Take the likeliest choice instead of a draw.

    Raises:
        ValueError: The environment's arrays are not of the shapes that the policy was trained on.
    """

    def __init__(
        self, policy: Any, codec: ArrayCodec, env: LongVideoVectorEnv, deterministic: bool = True
    ) -> None:
        self.policy, self.codec, self.env = policy, codec, env
        self.deterministic = deterministic
        self.settings = env.simulation.settings
        choices = policy.action_space.nvec.tolist()
        self.segments = int(choices[0]) - 1
        _check(_shapes(policy.observation_space), _arrays(codec, env))

    def begin(self, rows: Sequence[int]) -> None:
        """Nothing to forget: the policy sees one observation at a time."""

    def act(self, observations: Mapping[str, Any], rows: Sequence[int]) -> list[Decision]:
        """Encode the rows, choose for all of them at once, turn choices into actions."""
        space, settings = self.env.single_observation_space, self.settings
        arrays = [
            self.codec.encode(unbatch(observations, row, space), self.env.task_of(row).family)
            for row in rows
        ]
        batch = {key: np.stack([one[key] for one in arrays]) for key in arrays[0]}
        chosen, _ = self.policy.predict(batch, deterministic=self.deterministic)
        return [
            Decision(
                choices_to_action(
                    choices,
                    float(one["duration"][0]),
                    self.segments,
                    settings.max_crops,
                    settings.max_crop_seconds,
                )
            )
            for choices, one in zip(chosen, arrays, strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write `policy.safetensors` and `sb3.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: value.detach().contiguous() for name, value in _weights(self.policy).items()}
        about = {
            "codec": asdict(self.codec),
            "arrays": _shapes(self.policy.observation_space),
            "choices": self.policy.action_space.nvec.tolist(),
        }
        for name, data in ((WEIGHTS, save(state)), (ABOUT, json.dumps(about, indent=1).encode())):
            write_whole(folder / name, data)

    @classmethod
    def load(cls, folder: Path, env: LongVideoVectorEnv) -> SB3Agent:
        """The agent that `save` wrote, for `env`; data alone, no pickle.

        Raises:
            OSError: There is none. ValueError: It does not fit `env`.
        """
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        codec = ArrayCodec(**{name: tuple(texts) for name, texts in about["codec"].items()})
        arrays = _arrays(codec, env)
        _check(about["arrays"], arrays)
        policy = MultiInputActorCriticPolicy(
            arrays, spaces.MultiDiscrete(about["choices"]), lambda _: 0.0, **POLICY
        )
        state = load((folder / WEIGHTS).read_bytes())
        lacking = _weights(policy).keys() - state.keys()
        if lacking:
            raise ValueError(f"{folder / WEIGHTS} lacks {min(lacking)}: save the policy again")
        policy.load_state_dict(state, strict=False)  # names of shared weights occur once
        policy.set_training_mode(False)
        return cls(policy, codec, env)


def _weights(policy: Any) -> dict[str, Tensor]:
    """Every weight once: actor and critic share the extractor."""
    module: nn.Module = getattr(policy, "policy", policy)
    return dict(module.named_parameters())


def _arrays(codec: ArrayCodec, env: LongVideoVectorEnv) -> spaces.Dict:
    """The arrays of an environment as SB3 sees them: the picture is (3, F * H, W)."""
    arrays = codec.space(cast(spaces.Dict, env.single_observation_space))
    frames = VecTransposeImage.transpose_space(cast(spaces.Box, arrays["frames"]))
    return spaces.Dict({**arrays.spaces, "frames": frames})


def _shapes(arrays: spaces.Space) -> dict[str, list[int]]:
    assert isinstance(arrays, spaces.Dict)
    return {
        key: [int(space.n)] if isinstance(space, spaces.Discrete) else list(space.shape or ())
        for key, space in arrays.spaces.items()
    }


def _check(trained: Mapping[str, list[int]], arrays: spaces.Dict) -> None:
    played = _shapes(arrays)
    odd = [name for name in played if trained.get(name) != played[name]]
    if odd:
        raise ValueError(
            f"the policy was trained on other arrays ({', '.join(odd)} differ): frame_size, "
            "frame_budget, frames_per_crop, max_crops and max_turns must be those of its training"
        )
