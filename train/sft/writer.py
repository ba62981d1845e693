"""A published conversation as tokens: the context that a rollout would have, turns included.

Between the messages of `train/sft/messages.py` and the trajectories that the learner takes. The
messages are appended to the context that rollouts use, so that a policy is taught the tokens it
will meet; only the assistant's are trained. Files that messages show are opened by the
environment's own reader. Tests: `pytest tests/sft/test_published.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import dropwhile
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
    SYSTEM_CLOSE,
    SYSTEM_OPEN,
    USER_CLOSE,
    USER_OPEN,
    TokenContext,
    decode_with_offsets,
    text_ids,
    token_roles,
)
from agents.text.conversation import open_conversation
from paravt_env.episode.simulation import Simulation
from paravt_env.protocol.parser import parse
from paravt_env.protocol.parts import FrameRef, Part, crop_parts, overview_parts
from paravt_env.protocol.styles import prompt_style
from paravt_env.protocol.tags import RESPONSE, Role, closing, opening
from paravt_env.task import Task
from paravt_env.tasksets.published.base import PublishedTasks
from paravt_env.tasksets.rows import FieldError
from paravt_env.video.sampler import window_times
from paravt_env.video.types import VideoError
from train.config.sft import SFTConfig
from train.sft.messages import (
    MEDIUM,
    TOO_LONG,
    TOOL,
    VIDEO,
    Medium,
    PublishedMessage,
    Unusable,
    check_opening,
    divided,
    refuse_marks,
    source_of,
)


class ConversationWriter:
    """Writes the conversation of a task as a trajectory.

    Args:
        vlm: Tokenizer and image geometry.
        config: Prompt style, opening and token limit.
        simulation: Of the environment; its reader opens the files, its settings are a rollout's.

    Raises:
        ConfigError: The task set publishes no conversations.
        CheckpointError: Frames are to be shown as video and the checkpoint has no video channel.
    """

    def __init__(self, vlm: VisionLanguageModel, config: SFTConfig, simulation: Simulation) -> None:
        self.vlm, self.config = vlm, config.published
        self.settings, self.store = simulation.settings, simulation.video.store
        self.style = prompt_style(config.agent.prompt_style)
        self.frames_as = config.agent.frames_as
        if self.frames_as == "video":
            _ = vlm.video  # a checkpoint without a video channel fails before a file is opened
        self.limits = Limits.of(self.settings)
        self.tasks, self.messages = source_of(simulation.tasks)
        vision = vlm.tokenizer.convert_ids_to_tokens(vlm.forbidden_ids)
        self.marks = frozenset((IM_START, IM_END, *vision))

    def trajectory(self, task: Task, view: Mapping[str, Any]) -> Trajectory:
        """The conversation of one task.

        Args:
            task: The task.
            view: The observation of its reset: overview, times, question.

        Raises:
            Unusable: Why it cannot be trained on.
        """
        messages = self.messages(task)
        refuse_marks(messages, self.marks)
        before, blocks = divided(messages)
        if self.config.opening == "rollout":
            check_opening(before)
            context = open_conversation(
                self.vlm, self.style, self.limits, view, frames_as=self.frames_as
            )
        else:
            context = self._published_opening(task, before, view)
        for block in blocks:
            if block[0].is_turn:
                self._append_turn(context, block[0].text)
            else:
                context.append_control(NEXT_TURN + USER_OPEN, Role.response)
                self._append_messages(context, block, Role.response)
                context.append_control(USER_CLOSE + ASSISTANT_OPEN, Role.response)
        limit = self.config.max_tokens
        if limit and len(context.ids) > limit:
            raise Unusable(TOO_LONG, f"{len(context.ids)} tokens; published.max_tokens is {limit}")
        return context.freeze()

    def _published_opening(
        self, task: Task, before: Sequence[PublishedMessage], view: Mapping[str, Any]
    ) -> TokenContext:
        """A context that opens with the published messages; the overview is the task's video."""
        context = TokenContext(self.vlm)
        said = "\n".join(message.text for message in before if message.is_system)
        if said:
            context.append_control(SYSTEM_OPEN, Role.prompt)
            context.append_text(said, Role.prompt)
            context.append_control(SYSTEM_CLOSE, Role.prompt)
        context.append_control(USER_OPEN, Role.prompt)
        asked = list(dropwhile(lambda one: one.is_system, before))
        self._append_messages(context, asked, Role.prompt, task.video, view)
        context.append_control(USER_CLOSE + ASSISTANT_OPEN, Role.prompt)
        context.close_prompt()
        return context

    def _append_messages(
        self,
        context: TokenContext,
        messages: Sequence[PublishedMessage],
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
                elif view is not None and (part.path == video or self._path(part) == video):
                    context.append_parts(parts, np.array(frames), role)
                    shown = overview_parts(self.style, {**view, "question": ""}, self.frames_as)
                    context.append_parts(shown, view["frames"], role)
                    parts, frames, view = [], [], None
                else:
                    more, images = self._shown(part, len(frames))
                    parts, frames = [*parts, *more], [*frames, *images]
            context.append_parts([*parts, after], np.array(frames), role)

    def _path(self, medium: Medium) -> str:
        if not isinstance(self.tasks, PublishedTasks):
            raise Unusable(MEDIUM, f"{medium.path} is not the video of the task")
        try:
            return self.tasks.video("messages", medium.path)
        except FieldError as error:
            raise Unusable(MEDIUM, str(error)) from error

    def _shown(self, medium: Medium, first: int) -> tuple[list[Part], list[np.ndarray]]:
        """Parts and frames of a file in a message: an image, or a clip sampled as a crop is."""
        path, size, settings = self._path(medium), self.settings.frame_size, self.settings
        if medium.kind != VIDEO:
            return [FrameRef(first)], [_image(path, size)]
        store = self.store
        try:
            duration = store.info(path).duration
            times = window_times(0.0, duration, settings.crop_fps, settings.frames_per_crop)
            frames = store.frames(path, times, size)
        except VideoError as error:
            raise Unusable(MEDIUM, str(error)) from error
        parts = crop_parts(self.style, frames.timestamps, first, self.frames_as)
        return parts, list(frames.pixels)

    def _append_turn(self, context: TokenContext, text: str) -> None:
        """Append an assistant's turn and its stop token, which are trained."""
        tokenizer = self.vlm.tokenizer
        ids = text_ids(tokenizer, text)
        read, ends = decode_with_offsets(tokenizer, ids)
        roles = [*token_roles(parse(read), ends), Role.tag]
        context.append([*ids, tokenizer.eos_token_id], list(map(int, roles)), [0.0] * len(roles))


def _image(path: str, size: tuple[int, int]) -> np.ndarray:
    """An image file, uint8 (H, W, 3), resized to `size`."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((size[1], size[0])), np.uint8)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise Unusable(MEDIUM, f"{path}: {error}") from error
