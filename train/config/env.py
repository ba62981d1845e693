"""The `env` group of a recipe: the environment's own settings, as far as a YAML file holds them.

Read by the workers, the evaluation and the cold start, which make environments.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from paravt_env.rewards.from_recipe import make_preset
from paravt_env.rewards.judge.settings import make_judge_settings
from paravt_env.settings import EnvSettings
from paravt_env.vector import LongVideoVectorEnv


@dataclass(frozen=True)
class EnvConfig(EnvSettings):
    """The environment's own settings, narrowed to what a YAML file can hold."""

    tasks: str = "synthetic"
    tasks_kwargs: dict[str, Any] | None = None
    frame_budget: int | dict[str, Any] | None = None
    reward: str | dict[str, Any] = "paravt"
    scorer: str | None = None
    servers: tuple[str, ...] = ()
    """Addresses of OpenEnv servers (`paravt serve --openenv`) that play the rows; none: here."""

    def check_reward(self) -> None:
        """Refuse a reward that no environment could be made with, before anything is loaded.

        Raises:
            ValueError: An unknown name, or a value of another type or out of range.
        """
        if isinstance(self.reward, str):
            make_preset(self.reward)
            return
        judge = self.reward.get("judge")
        if judge is not None:
            make_judge_settings(judge)
        make_preset({name: value for name, value in self.reward.items() if name != "judge"})

    def make(
        self, num_envs: int, split: str | None = None, budgets: tuple[int, ...] = ()
    ) -> LongVideoVectorEnv:
        """A vector environment of `num_envs` rows.

        Args:
            num_envs: Rows (B).
            split: Replaces the configured split.
            budgets: Frame budgets that will be asked for by reset options; the observation has room
                for them.
        """
        settings = {field.name: getattr(self, field.name) for field in fields(EnvSettings)}
        if split:
            settings["split"] = split
        if budgets:
            settings["frame_budget"] = {"kind": "choice", "values": list(budgets)}
        if self.servers:
            from train.adapters.farm import RemoteVectorEnv

            return RemoteVectorEnv(num_envs, self.servers, **settings)
        return LongVideoVectorEnv(num_envs, **settings)
