"""verifiers plays this environment: a `Taskset`, a `Toolset` with the crop tool, a reward a term.

Its engine runs the conversation and a tool server of its own runs the crops, one call at a time; at
the end the rollout is played again with every word that was written (`tool_calling.py`), and each
term is recorded with its weight. `examples/verifiers_environment/` is the package to publish.
Tests, with the real engine and a scripted model: `make test-adapters`.
"""

# no `from __future__ import annotations`: the tool server reads the types of the tool

import asyncio
import base64
import json
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from paravt_env.common.images import ENCODERS, data_uri
from paravt_env.episode.simulation import Failure
from paravt_env.protocol.parts import FrameRef, Part, forced_answer_text
from train.adapters.tool_calling import UNREADABLE, ToolCallingGame

try:
    import verifiers.v1 as vf
    from mcp.types import CallToolResult, ContentBlock, ImageContent, TextContent
except ImportError as error:
    raise ImportError(
        f"verifiers is not there ({error}): pip install 'paravt[verifiers]'"
    ) from error

PICTURE = "jpeg"


class CropState(vf.State):
    """What a rollout's calls need to know: the tool server is shared by all rollouts."""

    task_id: str = ""
    calls: int = 0


class CropToolsetConfig(vf.SharedToolsetConfig):
    """Which game the tool server plays."""

    game: dict[str, Any] = {}  # noqa: RUF012


class CropToolset(vf.Toolset[CropToolsetConfig, CropState]):
    """The tool server: one process, with the decoded frames of all rollouts."""

    TOOL_PREFIX = None

    @vf.tool
    def crop_video(self, start_time: float, end_time: float) -> CallToolResult:
        """Watch one window of the video closely. Start and end are in seconds."""
        game = game_of(self.config.game)
        limits = game.simulation.settings
        self.state.calls += 1
        if self.state.calls > limits.max_turns * limits.max_crops:
            return CallToolResult(content=[_text(forced_answer_text(game.style))])
        row = game.begin(game.start(self.state.task_id, 0))
        if isinstance(row, Failure):
            return CallToolResult(content=[_text(UNREADABLE)])
        view, (parts,) = game.crop(row, [{"start_time": start_time, "end_time": end_time}])
        return CallToolResult(content=[_content(part, view["frames"]) for part in parts])


class LongVideoData(vf.TaskData):
    """One question; its overview is in the prompt, its answer stays with the task set."""

    task_id: str
    frame_budget: int
    seed: int


class LongVideoTaskConfig(vf.TaskConfig):
    """Which game a task belongs to; `LongVideoTaskset` fills it in."""

    game: dict[str, Any] = {}  # noqa: RUF012


class LongVideoTask(vf.Task[LongVideoData, CropState, LongVideoTaskConfig]):
    """One question, whose rewards are the environment's terms."""

    async def setup(self, trace: vf.Trace, runtime: vf.Runtime) -> None:
        """Tell the tool server which video it is."""
        trace.state.task_id = self.data.task_id

    async def score(self, trace: vf.Trace, runtime: vf.Runtime | None = None) -> None:
        """Record each reward term, all finite.

        Raises:
            TaskError: The video could not be read, or a judge gave no verdict: nothing is recorded,
                so that the missing reward is not taken for 0.
        """
        await super().score(trace, runtime)
        if self.scoring_deferred:
            return
        game = game_of(self.config.game)
        start = game.start(self.data.task_id, self.data.frame_budget, self.data.seed)
        chat = [_message(one) for one in trace.assistant_messages]
        (played,) = await asyncio.to_thread(game.score, [start], [chat])
        trace.info["paravt"] = {"stop_reason": played.stop_reason, "error": played.error}
        if played.error:
            raise vf.TaskError(f"task {self.data.task_id!r} is not scored: {played.error}")
        for name, value in played.terms.items():
            if not math.isfinite(value):  # one NaN would make the saved traces unreadable
                raise vf.TaskError(f"reward term {name} of {self.data.task_id!r} is {value}")
            trace.record_reward(name, value, game.weights[name])


class LongVideoConfig(vf.TasksetConfig):
    """Which questions, and how they are played."""

    tasks: str = "synthetic"
    """A task set's name, a `.jsonl` manifest, or `file.py:name`."""
    style: str = "tool_calling"
    """Prompt style."""
    settings: dict[str, Any] = {}  # noqa: RUF012
    """Further arguments of `LongVideoEnv`: split, frame_size, frame_budget, reward, ..."""
    seed: int = 0
    """Of the draw of each task's K; all rollouts of a task share it."""
    task: LongVideoTaskConfig = LongVideoTaskConfig()


class LongVideoTaskset(vf.Taskset[LongVideoTask, LongVideoConfig]):
    """The questions of a task set; overviews are decoded as they are asked for."""

    def load(self) -> Iterator[LongVideoTask]:
        """The tasks in order; one whose video cannot be read says so in its prompt."""
        game = game_of(_game(self.config))
        ids = game.simulation.tasks.ids
        seeds = np.random.default_rng(self.config.seed).integers(2**31, size=len(ids)).tolist()
        config = self.config.task.model_copy(update={"game": _game(self.config)})
        for task_id, seed in zip(ids, seeds, strict=True):
            start = game.start(task_id, None, seed)
            row = game.begin(start)
            parts: list[Any] = [vf.TextContentPart(text=UNREADABLE)]
            if not isinstance(row, Failure):
                view = game.see(row)
                parts = [_prompt(part, view["frames"]) for part in game.opening(view)]
            data = LongVideoData(
                id=task_id,
                task_id=task_id,
                frame_budget=start.frame_budget,
                seed=seed,
                prompt=[vf.UserMessage(content=parts)],
                system_prompt=game.system,
            )
            yield LongVideoTask(data, config)

    @classmethod
    def toolsets(cls, config: LongVideoConfig) -> list[vf.Toolset]:
        """One tool server for all rollouts of a worker."""
        return [CropToolset(CropToolsetConfig(game=_game(config)))]


def game_of(arguments: dict[str, Any]) -> ToolCallingGame:
    """The game of these arguments, one a process, with the frames that it has decoded."""
    return _kept(json.dumps(arguments, sort_keys=True))


@lru_cache(4)
def _kept(arguments: str) -> ToolCallingGame:
    return ToolCallingGame(**json.loads(arguments))


def _game(config: LongVideoConfig) -> dict[str, Any]:
    return {"tasks": config.tasks, "style": config.style, **config.settings}


def _message(message: vf.AssistantMessage) -> dict[str, Any]:
    """An assistant's message in the form of OpenAI's API."""
    calls = [
        {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls or []
    ]
    said = {"content": message.content, "reasoning_content": message.reasoning_content}
    return {"role": "assistant", "tool_calls": calls, **said}


def _prompt(part: Part, frames: np.ndarray) -> Any:
    """A part of the first message, a frame as a data URI."""
    if isinstance(part, FrameRef):
        source = vf.ImageUrlSource(url=data_uri(frames[part.index], PICTURE))
        return vf.ImageUrlContentPart(image_url=source)
    return vf.TextContentPart(text=part)


def _content(part: Part, frames: np.ndarray) -> ContentBlock:
    """A part of a tool's answer."""
    if isinstance(part, FrameRef):
        data = base64.b64encode(ENCODERS[PICTURE](frames[part.index])).decode("ascii")
        return ImageContent(type="image", data=data, mime_type=f"image/{PICTURE}")
    assert isinstance(part, str)  # a tool's frames are shown one by one
    return _text(part)


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)


if __name__ == "__main__":
    CropToolset.run()
