"""verl's own tool loop crops a video: a tool class whose episode hangs on the rollout's data.

    # actor_rollout_ref.rollout.multi_turn.tool_config_path
    tools:
      - class_name: train.adapters.verl_tool.CropTool
        config: {type: native, game: {tasks: synthetic, frame_size: [160, 288]}}

verl makes and releases a tool for every call, so the episode is kept on `agent_data`, and the calls
of one turn are gathered into one step. A row's `extra_info.tools_kwargs` is
`{"crop_video": {"create_kwargs": {"task_id": ..., "frame_budget": ..., "seed": ...}}}`, and its
prompt shows the overview. The tool returns pictures with their times as text; what the answer
earns is not the tool's business, so the agent loop (`verl.py`) is the way to train. Tested with
verl's real classes, not run end to end (`docs/adapters.md`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from uuid import uuid4

from paravt_env.episode.episode import Episode
from paravt_env.episode.simulation import Failure
from paravt_env.protocol.parts import FrameRef
from paravt_env.protocol.schema import tool_schema
from train.adapters.tool_calling import OVER, UNREADABLE, ToolCallingGame
from train.adapters.verl import pictures, plain

try:
    from verl.tools.base_tool import BaseTool
    from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse
except ImportError as error:
    raise ImportError(
        f"verl is not there ({error}): pip install --no-deps verl==0.9.1 and what it imports"
    ) from error

STATE = "paravt"
"""The attribute of `agent_data`; its `extra_fields` would go into verl's batch."""
PICTURE = "<picture {number}>"
"""Where a picture stands in the text: verl puts all pictures of an answer before its text."""


class CropEpisode:
    """The episode of one rollout, and the calls of its turn that have not been played."""

    def __init__(self, game: ToolCallingGame, start: Mapping[str, Any]) -> None:
        self._game = game
        names = ("task_id", "frame_budget", "seed")
        self._start = game.start(*(start.get(name) for name in names))
        self._row: Episode | Failure | None = None
        self._calls: list[dict[str, Any]] = []
        self._turn: asyncio.Task[list[ToolResponse]] | None = None

    async def crop(self, arguments: dict[str, Any]) -> ToolResponse:
        """The answer of one call; the first of a turn plays it for all."""
        place, calls = len(self._calls), self._calls
        calls.append(arguments)
        await asyncio.sleep(0)  # verl gathers the calls of a turn: now all of them are in the list
        if calls is self._calls:
            self._calls = []
            self._turn = asyncio.create_task(asyncio.to_thread(self._play, calls))
        assert self._turn is not None
        return (await asyncio.shield(self._turn))[place]

    def _play(self, calls: list[dict[str, Any]]) -> list[ToolResponse]:
        if self._row is None:
            self._row = self._game.begin(self._start)
        row = self._row
        if isinstance(row, Failure) or row.stop_reason is not None:
            why = UNREADABLE if isinstance(row, Failure) else OVER
            return [ToolResponse(text=why) for _ in calls]
        view, answers = self._game.crop(row, calls)
        said = []
        for parts in answers:
            shown = [part.index for part in parts if isinstance(part, FrameRef)]
            text = "".join(
                PICTURE.format(number=shown.index(part.index) + 1)
                if isinstance(part, FrameRef)
                else str(part)
                for part in parts
            )
            frames = pictures([view["frames"][index] for index in shown])
            said.append(ToolResponse(text=text, **({"image": frames} if frames else {})))
        return said


class CropTool(BaseTool):
    """`crop_video` as verl's tool loop calls it.

    Args:
        config: `game`: the arguments of `ToolCallingGame`.
        tool_schema: None is our own.
    """

    def __init__(self, config: Any, tool_schema: OpenAIFunctionToolSchema | None = None) -> None:
        self._game = game_of(json.dumps(plain(plain(config).get("game")), sort_keys=True))
        self._starts: dict[str, Mapping[str, Any]] = {}
        super().__init__(plain(config), tool_schema or self.get_openai_tool_schema())

    def get_openai_tool_schema(self) -> OpenAIFunctionToolSchema:
        """The call as the environment reads it."""
        limits = self._game.simulation.settings
        return OpenAIFunctionToolSchema.model_validate(tool_schema(limits.max_crop_seconds))

    async def create(
        self, instance_id: str | None = None, create_kwargs: Mapping[str, Any] | None = None
    ) -> tuple[str, ToolResponse]:
        """Take the row's start for the call that follows.

        Raises:
            ValueError: The row names no task.
        """
        start = create_kwargs or {}
        if start.get("task_id") is None:
            raise ValueError(
                "a row needs extra_info.tools_kwargs.crop_video.create_kwargs with task_id, "
                "frame_budget and seed"
            )
        name = instance_id or uuid4().hex
        self._starts[name] = start
        return name, ToolResponse()

    async def execute(
        self, instance_id: str, parameters: dict[str, Any], agent_data: Any = None
    ) -> tuple[ToolResponse, float, dict]:
        """Look at one window.

        Args:
            instance_id: Of `create`.
            parameters: What the model wrote; a window that is none comes back with its status.
            agent_data: The rollout, which keeps the episode.

        Raises:
            ValueError: There is no rollout to keep it.
        """
        if agent_data is None:
            raise ValueError("the episode is kept on agent_data: verl's tool_agent loop gives it")
        rollout = getattr(agent_data, STATE, None)
        if rollout is None:
            rollout = CropEpisode(self._game, self._starts[instance_id])
            setattr(agent_data, STATE, rollout)
        return await rollout.crop(parameters), 0.0, {}

    async def release(self, instance_id: str) -> None:
        """Forget the call; the episode stays with the rollout."""
        self._starts.pop(instance_id, None)


@lru_cache(maxsize=4)
def game_of(arguments: str) -> ToolCallingGame:
    """One game for all tools of a process that have these arguments (JSON)."""
    return ToolCallingGame(**json.loads(arguments))
