"""Append-only token context: what was sampled is what is trained.

A conversation is a list of tokens that only grows. Text of the environment is tokenised once, when
it is appended; sampled tokens are kept as they were drawn. :class:`TokenContext` records for each
token who wrote it, its role and its log-probability, and freezes into a ``Trajectory``. Tests:
``pytest tests/policies/test_sampling.py``.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from agents.base import Trajectory, image_size
from paravt_env.protocol.parts import ClipRef, FrameRef, Part
from paravt_env.protocol.structure import ParsedCompletion
from paravt_env.protocol.tags import TAG_PATTERN, Role

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
SYSTEM_OPEN, SYSTEM_CLOSE = f"{IM_START}system\n", f"{IM_END}\n"
USER_OPEN, USER_CLOSE = f"{IM_START}user\n", f"{IM_END}\n"
ASSISTANT_OPEN = f"{IM_START}assistant\n"
NEXT_TURN = "\n"
"""ChatML, the conversation format of the whole Qwen family."""
KNOWN_TEXT = 64
"""Characters of a text whose tokens are remembered, at most."""


@lru_cache(maxsize=1)
def _byte_of_symbol() -> dict[str, int]:
    """Byte behind each printable symbol of a byte-level BPE vocabulary (GPT-2's alphabet)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = {chr(b): b for b in printable}
    for offset, byte in enumerate(b for b in range(256) if b not in set(printable)):
        symbols[chr(256 + offset)] = byte
    return symbols


@lru_cache(maxsize=4)
def _bytes_of_tokens(tokenizer: Any, size: int) -> list[bytes]:
    """Bytes of every token; `size` is the tokenizer's, so that tokens added later are seen."""
    symbols = _byte_of_symbol()
    added = tokenizer.added_tokens_decoder
    tokens = tokenizer.convert_ids_to_tokens(list(range(size)))
    unknown = "\N{REPLACEMENT CHARACTER}"
    return [
        str(added[i]).encode()
        if i in added
        else bytes(symbols.get(c, 255) for c in token or unknown)
        for i, token in enumerate(tokens)
    ]


@lru_cache(maxsize=4)
def _control(tokenizer: Any, size: int) -> re.Pattern[str]:
    """Where any special token's text starts; the protocol's own tags are text to a model."""
    added = tokenizer.added_tokens_decoder.values()
    special = {str(token) for token in added if getattr(token, "special", True)}
    special |= {*getattr(tokenizer, "all_special_tokens", ())}
    texts = sorted(text for text in special if len(text) > 1 and not TAG_PATTERN.fullmatch(text))
    return re.compile(f"(?={'|'.join(map(re.escape, texts))})" if texts else "(?!)")


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens of text that is nothing but text: a special token's name in it is its characters.

    The name is cut after its first character, so that the tokenizer sees it nowhere; all other
    text has the tokens that it always has. Unlike a switch of the tokenizer's, this holds for
    threads that share it.

    Args:
        tokenizer: A byte-level BPE tokenizer (Qwen's kind).
        text: Foreign: questions, options, subtitles, readings.
    """
    size = len(tokenizer)
    known = _known_ids if len(text) <= KNOWN_TEXT else _known_ids.__wrapped__
    return list(known(tokenizer, size, text))


@lru_cache(maxsize=4096)
def _known_ids(tokenizer: Any, size: int, text: str) -> tuple[int, ...]:
    """Tokens of `text`: those of frame labels are asked for at every frame of every row."""
    return tuple(
        one
        for piece in _pieces(text, _control(tokenizer, size))
        for one in tokenizer(piece, add_special_tokens=False)["input_ids"]
    )


def _pieces(text: str, control: re.Pattern[str]) -> Iterator[str]:
    position = 0
    for match in control.finditer(text):
        yield text[position : match.start() + 1]
        position = match.start() + 1
    if position < len(text):
        yield text[position:]


def stop_ids(vlm: Any) -> frozenset[int]:
    """Tokens that end a turn: the tokenizer's, and all of the checkpoint's generation settings."""
    said = getattr(
        getattr(getattr(vlm, "model", None), "generation_config", None), "eos_token_id", None
    )
    listed = said if isinstance(said, list | tuple) else [said]
    return frozenset({vlm.tokenizer.eos_token_id, *listed} - {None})


def decode_with_offsets(tokenizer: Any, ids: Sequence[int]) -> tuple[str, list[int]]:
    """Decode tokens and tell where each one ends in the text.

    Bytes that are no UTF-8 become U+FFFD, and so does an id that a padded embedding has and the
    tokenizer has not; a character spread over tokens belongs to the last one.

    Args:
        tokenizer: A byte-level BPE tokenizer (Qwen's kind).
        ids: Token ids.

    Returns:
        The text and, for each token, the character offset after it.
    """
    known = _bytes_of_tokens(tokenizer, len(tokenizer))
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text, ends, length = [], [], 0
    for token in ids:
        piece = decoder.decode(known[token] if token < len(known) else b"\xff")
        text.append(piece)
        length += len(piece)
        ends.append(length)
    text.append(decoder.decode(b"", final=True))
    return "".join(text), ends


def token_roles(parsed: ParsedCompletion, ends: Sequence[int]) -> list[Role]:
    """Role of each token of a completion: that of the first character it adds.

    A token that holds any character of a structural tag is a tag, so that token-level format credit
    reaches the whole tag.

    Args:
        parsed: The completion.
        ends: For each token, the character offset after it (`decode_with_offsets`).
    """
    of_character = np.full(len(parsed.text) + 1, int(Role.text), dtype=np.int8)
    for start, end, role in parsed.roles():
        of_character[start:end] = int(role)
    roles, start = [], 0
    for end in ends:
        piece = of_character[start : max(end, start + 1)]
        roles.append(Role.tag if (piece == int(Role.tag)).any() else Role(int(piece[0])))
        start = end
    return roles


class TokenContext:
    """The tokens of one conversation.

    Attributes:
        ids: All tokens so far.
        images: uint8 (H, W, 3) images behind the image tokens, or temporal patches (2, H, W, 3)
            behind the video tokens, in order.
        computed: How many tokens already have keys and values in the sampler's cache.
        position: M-RoPE position of the next token to be computed.
        stream: What its draws depend on (`agents.model.draws`); None until the first one.
    """

    def __init__(self, vlm: Any, kind: Literal["main", "subagent"] = "main") -> None:
        self.vlm = vlm
        self.kind = kind
        self.ids: list[int] = []
        self.images: list[np.ndarray] = []
        self.image_starts: list[int] = []
        self.computed = 0
        self.position = 0
        self.stream: int | None = None
        self.version: int | None = None
        self._roles: list[int] = []
        self._logprobs: list[float] = []
        self._sampled: list[bool] = []
        self._due: list[bool] = []
        self._prompt_length: int | None = None
        self._frames = self._visual_tokens = 0

    def append(
        self,
        ids: Sequence[int],
        roles: int | Sequence[int],
        logprobs: Sequence[float] | None = None,
        due: Sequence[bool] | None = None,
    ) -> None:
        """Append tokens; with ``logprobs`` the policy sampled them, without it did not.

        ``due`` marks those that were sampled where a tag was asked for.
        """
        n = len(ids)
        self._due.extend(due if due is not None else [False] * n)
        self.ids.extend(ids)
        self._roles.extend([int(roles)] * n if isinstance(roles, int) else map(int, roles))
        self._logprobs.extend(logprobs if logprobs is not None else [0.0] * n)
        self._sampled.extend([logprobs is not None] * n)

    def drawn_by(self, version: int) -> None:
        """Note which weights drew the tokens that were sampled.

        Raises:
            RuntimeError: Other weights drew earlier tokens: no update could use the conversation.
        """
        if self.version not in (None, version):
            raise RuntimeError(
                f"a conversation was drawn by versions {self.version} and {version} of the "
                "weights: change them between episodes only"
            )
        self.version = version

    def append_control(self, text: str, role: Role) -> None:
        """Tokenise and append our own text, in which special tokens are meant."""
        self.append(self.vlm.tokenizer(text, add_special_tokens=False)["input_ids"], int(role))

    def append_text(self, text: str, role: Role) -> None:
        """Tokenise and append text that the policy did not write; special tokens stay text."""
        if text:
            self.append(text_ids(self.vlm.tokenizer, text), int(role))

    def append_parts(self, parts: Sequence[Part], frames: np.ndarray, role: Role) -> None:
        """Append text, frames and clips in order.

        Args:
            parts: Texts and references into ``frames``.
            frames: uint8 (F, H, W, 3).
            role: Role of the text tokens and of the image tokens.
        """
        run: list[str] = []
        for part in parts:
            if isinstance(part, str):
                run.append(part)
                continue
            self.append_text("".join(run), role)
            run = []
            if isinstance(part, FrameRef):
                self.append_image(frames[part.index], role)
            else:
                self.append_clip(_frames_of(part, frames), part.times, role)
        self.append_text("".join(run), role)

    def append_image(self, image: np.ndarray, role: Role) -> None:
        """Append one frame: vision start, its image tokens, vision end."""
        self._append_visual(image, self.vlm.image_pad_id, role)
        self._frames += 1

    def append_clip(self, frames: np.ndarray, times: Sequence[float], role: Role) -> None:
        """Append frames as one video, in the tokens of the model's own processor.

        Args:
            frames: uint8 (F, H, W, 3), at least one.
            times: (F,) seconds.
            role: Of all tokens.

        Raises:
            CheckpointError: The checkpoint has no video channel.
            ValueError: No frame, or not a time for each.
        """
        if not len(frames) or len(frames) != len(times):
            raise ValueError(f"a clip of {len(frames)} frames with {len(times)} times")
        video = self.vlm.video
        self.append([self.vlm.vision_start_id], int(role))
        for stamp, patch in zip(video.stamps(times), video.patches(frames), strict=True):
            self.append_text(stamp, role)
            self._append_visual(patch, video.pad_id, role)
        self.append([self.vlm.vision_end_id], int(role))
        self._frames += len(frames)

    def _append_visual(self, image: np.ndarray, pad_id: int, role: Role) -> None:
        """Append an image or a temporal patch between its marks."""
        count = self.vlm.image_token_count(*image_size(image))
        self.image_starts.append(len(self.ids) + 1)
        self.images.append(image)
        self._visual_tokens += count
        marks = self.vlm.vision_start_id, self.vlm.vision_end_id
        self.append([marks[0], *[pad_id] * count, marks[1]], int(role))

    def close_prompt(self) -> None:
        """Mark the end of the prompt: what follows is the branch of this rollout."""
        self._prompt_length = len(self.ids)

    def ask(self, parts: Sequence[Part], frames: np.ndarray) -> None:
        """Append one user message as the whole prompt, up to where the assistant begins."""
        self.append_control(USER_OPEN, Role.prompt)
        self.append_parts(parts, frames, Role.prompt)
        self.append_control(USER_CLOSE + ASSISTANT_OPEN, Role.prompt)
        self.close_prompt()

    def images_from(self, token: int) -> list[np.ndarray]:
        """Images whose tokens start at or after index ``token``."""
        return [
            image
            for image, start in zip(self.images, self.image_starts, strict=True)
            if start >= token
        ]

    def counts(self) -> dict[str, int]:
        """Frames, image and video tokens, sampled tokens, and all tokens that were not sampled."""
        sampled = sum(self._sampled)
        return {
            "frames": self._frames,
            "visual_tokens": self._visual_tokens,
            "prompt_tokens": len(self.ids) - sampled,
            "completion_tokens": sampled,
        }

    def freeze(self) -> Trajectory:
        """The conversation so far as an immutable trajectory.

        Raises:
            RuntimeError: If :meth:`close_prompt` was never called (a bug of the agent).
        """
        if self._prompt_length is None:
            raise RuntimeError("close_prompt() must be called before freeze()")
        p = self._prompt_length
        split = sum(start < p for start in self.image_starts)
        return Trajectory(
            prompt_ids=np.array(self.ids[:p], dtype=np.int64),
            branch_ids=np.array(self.ids[p:], dtype=np.int64),
            loss_mask=np.array(self._sampled[p:], dtype=bool),
            logprobs=np.array(self._logprobs[p:], dtype=np.float32),
            roles=np.array(self._roles[p:], dtype=np.int8),
            prompt_images=tuple(self.images[:split]),
            branch_images=tuple(self.images[split:]),
            kind=self.kind,
            version=self.version or 0,
            due=np.array(self._due[p:], dtype=bool),
        )


def _frames_of(clip: ClipRef, frames: np.ndarray) -> np.ndarray:
    """The frames of a clip, a view where they lie one after the other."""
    first, last = clip.indices[0], clip.indices[-1]
    if clip.indices == tuple(range(first, last + 1)):
        return frames[first : last + 1]
    return frames[list(clip.indices)]
