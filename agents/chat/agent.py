"""A policy behind any OpenAI-style chat server: closed APIs, vLLM, SGLang, llama.cpp.

Beside `agents.text.conversation`, whose prompts, evidence and turns it shares: there the context is
a list of tokens, here a list of messages with the frames as base64 pictures, or, where
`agent.frames_as` is `video`, as one video (`agents.chat.video`). It has no token ids and cannot be
trained; it is evaluated by the same driver:

    paravt eval --evaluation.policy openai --evaluation.chat.base_url http://localhost:8000/v1
        --evaluation.chat.model NAME --agent.prompt_style qwen3vl

A row whose question gets no reply after all retries is an agent error, never an answer. Tests:
`pytest tests/policies/test_openai_agent.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agents.base import Completion, Decision
from agents.chat.client import ChatClient, ChatConfig, ChatRequest
from agents.chat.text import Message, ToolCall, as_text, completion_text, native_calls, one_call
from agents.chat.video import clip_url, media_settings
from agents.config import AgentConfig, Limits
from paravt_env.common.http.client import Usage
from paravt_env.common.http.endpoint import EndpointError
from paravt_env.common.http.replies import Reply
from paravt_env.common.images import data_uri
from paravt_env.crop import CROP_STATUSES, CropStatus
from paravt_env.protocol.parser import action_of, parse
from paravt_env.protocol.parts import (
    ClipRef,
    FrameRef,
    Part,
    evidence_parts,
    forced_answer_text,
    overview_parts,
    subagent_parts,
    system_text,
    window_that_ran,
)
from paravt_env.protocol.schema import tool_schema
from paravt_env.protocol.styles import prompt_style
from paravt_env.protocol.tags import RESPONSE, closing, opening
from paravt_env.spaces import unbatch
from paravt_env.subtitles import lines_of

_OK = 1 + CROP_STATUSES.index(CropStatus.ok)


@dataclass
class _Row:
    """What the agent remembers of one row's episode."""

    messages: list[Message] = field(default_factory=list)
    action: dict[str, Any] | None = None
    tool_calls: list[ToolCall] = field(default_factory=list)
    """Native calls of the last turn, as the server gave them."""
    written_calls: int = 0
    """Calls of that turn that the model wrote as text, before the native ones."""
    prefix: str = ""
    """What the turn that is asked for was made to start with."""
    frames: int = 0
    media: dict[str, Any] = field(default_factory=dict)
    """`media_io_kwargs` of the conversation: the times of the video that it holds."""
    usage: Usage = field(default_factory=Usage)


class OpenAIAgent:
    """Plays through a chat server.

    Args:
        base_url: Address before `/chat/completions`, such as `http://localhost:8000/v1`.
        model: The model's name there.
        key_variable: Environment variable that holds the key, "" for none.
        config: How it plays. The forced prefix is used with `prefill=True` alone.
        limits: What the environment allows.
        pause: Waits between two attempts.
        **chat: Further fields of `agents.chat.client.ChatConfig`.

    Raises:
        ValueError: Settings that cannot work, before any request.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        key_variable: str = "",
        config: AgentConfig | None = None,
        limits: Limits | None = None,
        pause: Callable[[float], None] = time.sleep,
        **chat: Any,
    ) -> None:
        self.chat = ChatConfig(base_url, model, key_variable=key_variable, **chat)
        native = self.chat.calls == "native"
        self.config = config or AgentConfig(prompt_style="tool_calling" if native else "paravt")
        self.limits = limits or Limits()
        self.style = prompt_style(self.config.prompt_style)
        if native and "{tools}" in self.style.system:
            raise ValueError(
                f"the prompt style {self.style.name!r} lists the tool, and so does a server with "
                "calls='native': use the style 'tool_calling'"
            )
        self.evidence = self.config.evidence or self.limits.evidence
        if self.limits.code:
            self.evidence = "frames"
        self.frames_as = self.config.frames_as
        if self.frames_as == "video" and self.evidence == "frames":
            raise ValueError(
                "a request to a chat server tells the times of one video, and evidence='frames' "
                "would show several: set agent.evidence=subagent, or agent.frames_as=image"
            )
        self.client = ChatClient(self.chat, pause)
        self._rows: dict[int, _Row] = {}

    def begin(self, rows: Sequence[int]) -> None:
        """Forget the episodes of `rows`."""
        for row in rows:
            self._rows[row] = _Row()

    def close(self) -> None:
        """Stop the threads."""
        self.client.close()

    def usage(self, row: int) -> dict[str, float]:
        """Frames, tokens, requests and cost of a row's episode so far.

        Every turn sends the whole conversation again, and its prompt tokens are counted again.
        """
        state = self._rows[row]
        names = ("prompt_tokens", "completion_tokens", "requests", "cost")
        return {"frames": float(state.frames)} | {
            name: float(getattr(state.usage, name)) for name in names
        }

    def act(self, observations: Mapping[str, Any], rows: Sequence[int]) -> list[Decision]:
        """Read the crops of all rows, then ask for the turns of all rows; each at once."""
        views = {row: unbatch(observations, row) for row in rows}
        for row in rows:
            self._rows.setdefault(row, _Row())
        texts, failed = self._read_crops(views)
        asked = [row for row in rows if row not in failed]
        replies = self.client.ask_all([self._turn(row, views[row], texts[row]) for row in asked])
        decisions = {
            row: self._decide(row, reply) for row, reply in zip(asked, replies, strict=True)
        }
        return [
            decisions[row] if row in decisions else self._failure(row, failed[row]) for row in rows
        ]

    def _read_crops(
        self, views: Mapping[int, Mapping[str, Any]]
    ) -> tuple[dict[int, list[str]], dict[int, EndpointError]]:
        """Sub-agent texts by row and call, and the rows of which a crop could not be read."""
        places: list[tuple[int, int]] = []
        requests: list[ChatRequest] = []
        for row, view in views.items():
            state = self._rows[row]
            if state.action is None or self.evidence == "frames":
                continue
            for call in map(int, np.flatnonzero(view["crop_status"] == _OK)):
                shown = view["window"] == call + 1
                start, end = window_that_ran(view, state.action["crops"][call])
                times = view["timestamps"][shown]
                said = lines_of(view["subtitles"], call + 1)
                parts = subagent_parts(
                    self.style, view["question"], (start, end), times, said, self.frames_as
                )
                places.append((row, call))
                content = self._content(row, parts, view["frames"][shown])
                asked = [{"role": "user", "content": content}]
                limit, media = self.config.subagent_tokens, _media(parts)
                requests.append(self._request(row, asked, limit, media))
        texts = {row: [""] * self.limits.max_crops for row in views}
        failed: dict[int, EndpointError] = {}
        for (row, call), reply in zip(places, self.client.ask_all(requests), strict=True):
            if isinstance(reply, EndpointError):
                failed[row] = reply
            else:
                texts[row][call] = reply.content.strip()
        return texts, failed

    def _turn(self, row: int, view: Mapping[str, Any], texts: Sequence[str]) -> ChatRequest:
        """Append what the row sees now and ask for its next turn."""
        state = self._rows[row]
        forced = bool(view["must_answer"])
        if state.action is None:
            limits = self.limits
            system = system_text(
                self.style,
                limits.max_crops,
                limits.max_crop_seconds,
                limits.max_turns,
                limits.crop_frames,
            )
            if system:
                state.messages.append({"role": "system", "content": as_text(system)})
            parts = overview_parts(self.style, view, self.frames_as)
            state.media = _media(parts)
        else:
            parts = self._evidence(state, view, texts)
        if forced:
            parts.append(forced_answer_text(self.style))
        if parts:
            content = self._content(row, parts, view["frames"])
            state.messages.append({"role": "user", "content": content})
        limit = self.config.answer_tokens if forced else self.config.max_new_tokens
        fields: dict[str, Any] = dict(state.media)
        if self.chat.calls == "native" and not (forced and state.action is None):
            fields["tools"] = [tool_schema(self.limits.max_crop_seconds, self.limits.crop_frames)]
            fields |= {"tool_choice": "none"} if forced else {}
        messages = list(state.messages)
        state.prefix = self._prefix_of(forced)
        if state.prefix:
            messages.append({"role": "assistant", "content": state.prefix})
            fields |= {"add_generation_prompt": False, "continue_final_message": True}
        return self._request(row, messages, limit, fields)

    def _prefix_of(self, forced: bool) -> str:
        """What a turn is made to start with."""
        free = not self.chat.prefill or (forced and not self.config.answer_prefix)
        return "" if free else self.config.forced_prefix

    def _evidence(self, state: _Row, view: Mapping[str, Any], texts: Sequence[str]) -> list[Part]:
        """What the calls brought: for the user's message, or for one message a native call."""
        assert state.action is not None
        windows = state.action["crops"]
        shown = texts if self.evidence == "subagent" else None
        if not state.tool_calls:
            return evidence_parts(self.style, view, windows, shown)
        first = state.written_calls
        after: list[Part] = []
        for place, tool_call in enumerate(state.tool_calls):
            parts = evidence_parts(self.style, one_call(view, first + place), windows, shown)
            said = "".join(part for part in parts if isinstance(part, str))
            text = said.replace(f"{opening(RESPONSE)}\n", "").replace(f"\n{closing(RESPONSE)}", "")
            text = as_text(text.strip())
            message = {"role": "tool", "tool_call_id": tool_call["id"], "content": text}
            if any(isinstance(part, FrameRef) for part in parts):  # tools answer in text alone
                message["content"] = "Its frames are in the next message."
                after += parts
            state.messages.append(message)
        return after

    def _content(self, row: int, parts: Sequence[Part], frames: np.ndarray) -> Any:
        """Parts as the content of a message: text, and frames as pictures or as one video."""
        if all(isinstance(part, str) for part in parts):
            return as_text("".join(map(str, parts)))
        content: list[dict[str, Any]] = []
        for part in parts:
            if isinstance(part, FrameRef):
                self._rows[row].frames += 1
                url = data_uri(frames[part.index], self.chat.pictures)
                content.append({"type": "image_url", "image_url": {"url": url}})
            elif isinstance(part, ClipRef):
                self._rows[row].frames += len(part.indices)
                url = clip_url(frames[list(part.indices)], self.chat.pictures)
                content.append({"type": "video_url", "video_url": {"url": url}})
            else:
                content.append({"type": "text", "text": as_text(part)})
        return content

    def _request(
        self,
        row: int,
        messages: Sequence[Message],
        limit: int,
        fields: Mapping[str, Any] | None = None,
    ) -> ChatRequest:
        sampling = {"temperature": self.config.temperature, **(fields or {})}
        return ChatRequest(messages, limit, self._rows[row].usage, sampling)

    def _decide(self, row: int, reply: Reply | EndpointError) -> Decision:
        """Append the reply to the conversation and parse it into an action."""
        if isinstance(reply, EndpointError):
            return self._failure(row, reply)
        state = self._rows[row]
        prefix = state.prefix
        calls = native_calls(reply.message) if self.chat.calls == "native" else []
        text = completion_text(prefix + reply.content, reply.message, calls)
        parsed = parse(text, lenient=self.limits.lenient_calls, code=self.limits.code)
        state.action = action_of(parsed, self.limits.max_crops, self.limits.density)
        state.tool_calls, state.written_calls = calls, len(parsed.calls) - len(calls)
        message: Message = {"role": "assistant", "content": as_text(prefix + reply.content)}
        if calls:
            message["tool_calls"] = calls
        state.messages.append(message)
        cut, length = reply.finish == "length", reply.completion_tokens or None
        return Decision(state.action, Completion(text, (), (), (), cut=cut, length=length))

    def _failure(self, row: int, error: EndpointError) -> Decision:
        requests = self._rows[row].usage.requests
        where = f"{self.chat.model} at {self.chat.base_url}"
        reason = f"no reply from {where} after {requests} requests: {error}"
        return Decision.failed(reason, self.limits.max_crops)


def _media(parts: Sequence[Part]) -> dict[str, Any]:
    """The request's field with the times of the video in `parts`; none where there is none."""
    clips = [part for part in parts if isinstance(part, ClipRef)]
    return {"media_io_kwargs": media_settings(clips[0].times)} if clips else {}
