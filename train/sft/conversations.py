"""Published conversations as trajectories: supervised fine-tuning on what a data set ships.

Between a task set and the learner, where `train/sft/traces.py` stands for the synthetic world. The
overview is opened by the environment's own simulation (reader, sampler, frame budget, subtitles)
and the messages are appended to the context that rollouts use, so that a policy is taught the
tokens it will meet; only the assistant's are trained. Conversations are written as they are drawn:
no more frames are in memory than one chunk has. What cannot be used is left out, counted and
named. Tests: `pytest tests/sft/test_published.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile, groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agents.base import Trajectory
from agents.config import Limits
from agents.model.vlm import VisionLanguageModel
from agents.text.context import (
    ASSISTANT_OPEN,
    IM_END,
    IM_START,
    NEXT_TURN,
    SYSTEM,
    USER_CLOSE,
    USER_OPEN,
    TokenContext,
    decode_with_offsets,
    token_roles,
)
from agents.text.conversation import open_conversation, row_of
from paravt_env.episode.simulation import Failure
from paravt_env.protocol import render_completion
from paravt_env.protocol.parts import FrameRef, Part, crop_parts, overview_parts, prompt_style
from paravt_env.protocol.tags import RESPONSE, THINK, Role, closing, opening
from paravt_env.task import Task, TaskSet
from paravt_env.tasksets.published.base import PublishedTasks
from paravt_env.tasksets.published.longvideo_reason import LongVideoReasonTasks
from paravt_env.tasksets.published.paravt_parquet import (
    FILE_SCHEME,
    MEDIA,
    PLACEHOLDER,
    ParaVTSFTTasks,
    as_json,
)
from paravt_env.tasksets.rows import FieldError
from paravt_env.vector import LongVideoVectorEnv
from paravt_env.video.sampler import window_times
from paravt_env.video.types import VideoError
from train.common.errors import ConfigError
from train.config.sft import SFTConfig
from train.distributed.processes import ALONE, Parallel

MALFORMED, MEDIUM, OPENING, TOO_LONG = "malformed", "media", "opening", "too_long"
"""Why a conversation is left out: its structure; a file that cannot be read; messages before the
first turn that a rollout's opening cannot stand for; its tokens."""
ASSISTANT, SYSTEM_ROLE, USER, TOOL = "assistant", "system", "user", "tool"
VIDEO = MEDIA[0]
RECORD = "left_out.jsonl"
"""File in the run's folder: one line a conversation that was left out."""


class Unusable(ValueError):
    """A conversation that cannot be trained on; `kind` is one of the reasons above."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Medium:
    """A file that a message shows: `video_url` or `image_url`, and its path as published."""

    kind: str
    path: str


@dataclass(frozen=True)
class Message:
    """One message: texts and files in their order."""

    role: str
    parts: tuple[str | Medium, ...]

    @property
    def text(self) -> str:
        """Its texts."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def media(self) -> list[Medium]:
        """Its files."""
        return [part for part in self.parts if isinstance(part, Medium)]


def published_messages(task: Task) -> list[Message]:
    """The conversation of a task of ParaVT-Parquet: the column `messages`.

    Raises:
        Unusable: It is not made of messages with a known role and known parts.
    """
    try:
        messages = as_json("messages", task.metadata["messages"])
    except FieldError as error:
        raise Unusable(MALFORMED, str(error)) from error
    if not isinstance(messages, list):
        raise Unusable(MALFORMED, f"a list of messages expected, not {type(messages).__name__}")
    return [_message(number, message) for number, message in enumerate(messages, 1)]


def _message(number: int, message: Any) -> Message:
    role = message.get("role") if isinstance(message, Mapping) else None
    if role not in (SYSTEM_ROLE, USER, TOOL, ASSISTANT):
        raise Unusable(MALFORMED, f"message {number} has the role {role!r}")
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise Unusable(MALFORMED, f"message {number}: content is neither text nor a list")
    parts: list[str | Medium] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        value = part.get(kind) if kind in ("text", *MEDIA) else None
        if kind in MEDIA and isinstance(value, Mapping):
            value = value.get("url")
        if kind is None or not isinstance(value, str):
            raise Unusable(MALFORMED, f"message {number}: a part is neither text nor a file")
        if kind == "text":
            parts.append(value if role == ASSISTANT else value.replace(PLACEHOLDER, ""))
        else:
            parts.append(Medium(kind, value.removeprefix(FILE_SCHEME)))
    return Message(role, tuple(parts))


def reasoning_messages(task: Task) -> list[Message]:
    """The conversation of a task of LongVideo-Reason: question, `reasoning` and answer.

    This is the CoT-SFT stage of LongVILA-R1 (arXiv 2507.07966).

    Raises:
        Unusable: There is no reasoning, or there are other tags than one `<think>` around it.
    """
    thought = task.metadata["reasoning"].strip()
    thought = thought.removeprefix(opening(THINK)).removesuffix(closing(THINK)).strip()
    if not thought:
        raise Unusable(MALFORMED, "'reasoning' is empty")
    try:
        said = render_completion(thought, answer=task.answer)
    except ValueError as error:
        raise Unusable(MALFORMED, f"'reasoning': {error}") from error
    asked = Message(USER, (Medium(VIDEO, task.video), task.prompt))
    return [asked, Message(ASSISTANT, (said,))]


SOURCES: dict[str, Callable[[Task], list[Message]]] = {
    ParaVTSFTTasks.set_name: published_messages,
    LongVideoReasonTasks.set_name: reasoning_messages,
}
"""Task sets that publish conversations, and what reads them."""


def source_of(tasks: TaskSet) -> tuple[PublishedTasks, Callable[[Task], list[Message]]]:
    """A task set and what reads its conversations; raises `ConfigError` where it has none."""
    known = SOURCES.get(tasks.name)
    if known is None or not isinstance(tasks, PublishedTasks):
        raise ConfigError(
            f"env.tasks={tasks.name}: a stage with published > 0 needs a task set that publishes "
            f"conversations: {' or '.join(SOURCES)}"
        )
    return tasks, known


def make_env(config: SFTConfig) -> LongVideoVectorEnv:
    """The environment of a run on published conversations.

    Raises:
        ConfigError: Its task set publishes none, or no row of it is one.
    """
    tasks, _ = source_of(config.env.load_tasks())
    if not len(tasks):
        problem = tasks.problems[0] if tasks.problems else "the annotations hold no row"
        raise ConfigError(
            f"none of the {len(tasks.problems)} rows of {tasks.name} is a conversation; the first: "
            f"{problem}"
        )
    settings: Any = replace(config.env, tasks=tasks, tasks_kwargs=None)  # type: ignore[arg-type]
    return settings.make(config.evaluation.num_envs)


class PublishedConversations:
    """The conversations of an environment's task set, as trajectories.

    Args:
        vlm: Tokenizer and image geometry.
        config: Prompt style, opening, token limit and chunk.
        env: Of `make_env`; its simulation opens the videos.
        folder: Where `left_out.jsonl` is written; None writes none.
        parallel: The processes that train; what one of them cannot use, none does.

    Attributes:
        left_out: Reason of each conversation that was left out, by task id (by place where the row
            was not even a task).

    Raises:
        ConfigError: The task set publishes no conversations.
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        config: SFTConfig,
        env: LongVideoVectorEnv,
        folder: Path | None = None,
        parallel: Parallel = ALONE,
    ) -> None:
        self.vlm, self.config, self.parallel = vlm, config.published, parallel
        self.simulation = env.simulation
        self.settings = env.simulation.settings
        self.style = prompt_style(config.agent.prompt_style)
        self.limits = Limits.of(self.settings)
        self.tasks, self.messages = source_of(self.simulation.tasks)
        self.chunk = max(1, config.evaluation.num_envs)
        self.left_out: dict[str, Unusable] = {}
        self._record = folder / RECORD if folder is not None and parallel.leads else None
        if self._record is not None:
            self._record.write_text("", encoding="utf-8")
        for problem in self.tasks.problems:
            self._leave_out(str(problem.place), Unusable(MALFORMED, str(problem)))

    def counts(self) -> dict[str, int]:
        """Conversations left out so far, by reason."""
        return dict(Counter(reason.kind for reason in self.left_out.values()))

    def stream(self, rng: np.random.Generator) -> Iterator[Trajectory]:
        """Conversations for ever, every epoch in a new order, with a new frame budget each.

        Raises:
            ConfigError: A whole epoch held none that could be used.
        """
        while True:
            kept = 0
            order = rng.permutation(len(self.tasks))
            for at in range(0, len(order), self.chunk):
                for trajectory in self.write(order[at : at + self.chunk], rng):
                    kept += 1
                    yield trajectory
            if not kept:
                first = next(iter(self.left_out.values()), "the set is empty")
                raise ConfigError(
                    f"none of the {len(self.tasks)} conversations of {self.tasks.name} could be "
                    f"used: {self.counts()}; the first: {first}"
                )

    def write(self, indices: Sequence[int] | np.ndarray, rng: np.random.Generator) -> list[Any]:
        """Trajectories of the tasks with these indices, without those that cannot be used.

        A conversation that was left out is not tried again, unless it was for its length: that
        depends on the frame budget.
        """
        chosen = [self.tasks[int(index)] for index in indices]
        chosen = [task for task in chosen if self._worth_trying(task)]
        if not chosen:
            return []
        starts = [self.simulation.draw(rng, task.id) for task in chosen]
        episodes = self.simulation.start(starts)
        rows = [None if isinstance(episode, Failure) else episode for episode in episodes]
        view = self.simulation.observe(rows)
        outcomes: list[Trajectory | Unusable] = []
        for row, (task, episode) in enumerate(zip(chosen, episodes, strict=True)):
            try:
                if isinstance(episode, Failure):
                    raise Unusable(MEDIUM, episode.info()["error"])
                outcomes.append(self.trajectory(task, row_of(view, row)))
            except Unusable as reason:
                outcomes.append(reason)
        failed = [(o.kind, str(o)) if isinstance(o, Unusable) else None for o in outcomes]
        kept = []
        everywhere = zip(*self.parallel.gather(failed), strict=True)
        for task, outcome, reasons in zip(chosen, outcomes, everywhere, strict=True):
            told = next((one for one in reasons if one is not None), None)
            if told is not None:
                self._leave_out(task.id, Unusable(*told))
            else:
                kept.append(outcome)
        return kept

    def _worth_trying(self, task: Task) -> bool:
        known = self.left_out.get(task.id)
        return known is None or known.kind == TOO_LONG

    def _leave_out(self, name: str, reason: Unusable) -> None:
        if name in self.left_out:
            return
        self.left_out[name] = reason
        if self._record is not None:
            line = {"name": name, "reason": reason.kind, "message": str(reason)}
            with self._record.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def trajectory(self, task: Task, view: Mapping[str, Any]) -> Trajectory:
        """The conversation of one task.

        Args:
            task: The task.
            view: The observation of its reset: overview, times, question.

        Raises:
            Unusable: Why it cannot be trained on.
        """
        messages = self.messages(task)
        before, blocks = self._divided(messages)
        if self.config.opening == "rollout":
            self._check_opening(before)
            context = open_conversation(self.vlm, self.style, self.limits, view)
        else:
            context = self._published_opening(task, before, view)
        for role, block in blocks:
            if role == ASSISTANT:
                self._append_turn(context, block[0].text)
            else:
                context.append_text(NEXT_TURN + USER_OPEN, Role.response)
                self._append_messages(context, block, Role.response)
                context.append_text(USER_CLOSE + ASSISTANT_OPEN, Role.response)
        limit = self.config.max_tokens
        if limit and len(context.ids) > limit:
            raise Unusable(TOO_LONG, f"{len(context.ids)} tokens; published.max_tokens is {limit}")
        return context.freeze()

    def _divided(
        self, messages: Sequence[Message]
    ) -> tuple[list[Message], list[tuple[str, list[Message]]]]:
        """Messages before the first turn, and the blocks from it to the last turn.

        A block is a turn, or all messages between two turns.
        """
        vision = self.vlm.tokenizer.convert_ids_to_tokens(self.vlm.forbidden_ids)
        marks = {IM_START, IM_END, *vision}
        for number, message in enumerate(messages, 1):
            found = sorted(mark for mark in marks if mark in message.text)
            if found:
                raise Unusable(MALFORMED, f"message {number} holds {found[0]} as text")
        blocks = [
            (ASSISTANT if turn else USER, list(block))
            for turn, block in groupby(messages, key=lambda message: message.role == ASSISTANT)
        ]
        before = blocks.pop(0)[1] if blocks and blocks[0][0] == USER else []
        while blocks and blocks[-1][0] == USER:
            blocks.pop()
        if not blocks:
            raise Unusable(MALFORMED, "there is no assistant turn")
        for role, block in blocks:
            if role == ASSISTANT and len(block) > 1:
                raise Unusable(MALFORMED, "two assistant turns in a row")
            if role == ASSISTANT and (block[0].media or not block[0].text.strip()):
                raise Unusable(MALFORMED, "an assistant turn is not text alone, or empty")
            if role == USER and any(message.role == SYSTEM_ROLE for message in block):
                raise Unusable(MALFORMED, "a system message after the first turn")
        roles = [message.role for message in dropwhile(_is_system, before)]
        if not roles or set(roles) != {USER}:
            raise Unusable(MALFORMED, "no question before the first assistant turn")
        return before, blocks

    def _check_opening(self, before: Sequence[Message]) -> None:
        shown = [medium.kind for message in before for medium in message.media]
        if shown != [VIDEO]:
            raise Unusable(
                OPENING,
                f"the question shows {', '.join(shown) or 'no file'}, a rollout's opening shows "
                "one video: published.opening=published trains it",
            )

    def _published_opening(
        self, task: Task, before: Sequence[Message], view: Mapping[str, Any]
    ) -> TokenContext:
        """A context that opens with the published messages; the overview is the task's video."""
        context = TokenContext(self.vlm)
        said = "\n".join(message.text for message in before if _is_system(message))
        context.append_text((SYSTEM.format(said) if said else "") + USER_OPEN, Role.prompt)
        asked = list(dropwhile(_is_system, before))
        self._append_messages(context, asked, Role.prompt, task.video, view)
        context.append_text(USER_CLOSE + ASSISTANT_OPEN, Role.prompt)
        context.close_prompt()
        return context

    def _append_messages(
        self,
        context: TokenContext,
        messages: Sequence[Message],
        role: Role,
        video: str = "",
        view: Mapping[str, Any] | None = None,
    ) -> None:
        """Append messages of one block, a tool's between tags as Qwen's chat template does."""
        for number, message in enumerate(messages):
            tagged = message.role == TOOL and opening(RESPONSE) not in message.text
            before = f"{opening(RESPONSE)}\n" if tagged else ""
            after = f"\n{closing(RESPONSE)}" if tagged else ""
            parts: list[Part] = ["\n" * bool(number) + before]
            frames: list[np.ndarray] = []
            for part in message.parts:
                if isinstance(part, str):
                    parts.append(part)
                elif view is not None and video in (part.path, self._path(part)):
                    context.append_parts(parts, np.array(frames), role)
                    shown = overview_parts(self.style, {**view, "question": ""})
                    context.append_parts(shown, view["frames"], role)
                    parts, frames, view = [], [], None
                else:
                    more, images = self._shown(part, len(frames))
                    parts, frames = [*parts, *more], [*frames, *images]
            context.append_parts([*parts, after], np.array(frames), role)

    def _path(self, medium: Medium) -> str:
        try:
            return self.tasks.video("messages", medium.path)
        except FieldError as error:
            raise Unusable(MEDIUM, str(error)) from error

    def _shown(self, medium: Medium, first: int) -> tuple[list[Part], list[np.ndarray]]:
        """Parts and frames of a file in a message: an image, or a clip sampled as a crop is."""
        path, size, settings = self._path(medium), self.settings.frame_size, self.settings
        if medium.kind != VIDEO:
            return [FrameRef(first)], [_image(path, size)]
        store = self.simulation.video.store
        try:
            duration = store.info(path).duration
            times = window_times(0.0, duration, settings.crop_fps, settings.frames_per_crop)
            frames = store.frames(path, times, size)
        except VideoError as error:
            raise Unusable(MEDIUM, str(error)) from error
        return crop_parts(self.style, frames.timestamps, first), list(frames.pixels)

    def _append_turn(self, context: TokenContext, text: str) -> None:
        """Append an assistant's turn and its stop token, which are trained."""
        tokenizer = self.vlm.tokenizer
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        roles = [*token_roles(*decode_with_offsets(tokenizer, ids)), Role.tag]
        context.append([*ids, tokenizer.eos_token_id], list(map(int, roles)), [0.0] * len(roles))


def _is_system(message: Message) -> bool:
    return message.role == SYSTEM_ROLE


def _image(path: str, size: tuple[int, int]) -> np.ndarray:
    """An image file, uint8 (H, W, 3), resized to `size`."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((size[1], size[0])), np.uint8)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise Unusable(MEDIUM, f"{path}: {error}") from error
