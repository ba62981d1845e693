"""What the parser finds in a completion: tags, blocks and calls, with their places in the text.

Between the parser, which builds it, and all who read it: the environment (calls, answer), the
reward terms (form) and the agents (the role of each token). Examples run as doctests:
`pytest --doctest-modules paravt_env/protocol`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from paravt_env.crop import CHOSEN_BY_SETTING, Window
from paravt_env.protocol.tags import ANSWER, RESPONSE, ROLE_OF_TAG, TAG_PATTERN, THINK, Role


class TagSpan(NamedTuple):
    """A tag at `text[start:end]`."""

    name: str
    closing: bool
    start: int
    end: int


class Block(NamedTuple):
    """A tagged block: `text` is what its tags enclose; `start` and `end` include them."""

    name: str
    text: str
    start: int
    end: int
    closed: bool

    @property
    def content(self) -> str:
        """The text without tags and surplus white space: what counts when form is scored."""
        return " ".join(TAG_PATTERN.sub(" ", self.text).split())


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as the model wrote it.

    `window` is None when `error` (`malformed` or `unknown_tool`) is set, and where the call is
    `code`, Python to be run; `message` says what is wrong. `video_path` is only ever compared,
    never opened. `fps` is the density that it asks for, frames a second: NaN where it asks for
    none, 0 where what it asks for is no number.
    """

    name: str | None
    window: Window | None
    video_path: str | None
    error: str | None
    message: str
    start: int
    end: int
    repairs: tuple[str, ...] = ()
    fps: float = CHOSEN_BY_SETTING
    code: str | None = None


@dataclass(frozen=True)
class ParsedCompletion:
    """The structure of one completion: tags, blocks and calls in the order of the text."""

    text: str
    tags: tuple[TagSpan, ...]
    blocks: tuple[Block, ...]
    calls: tuple[ToolCall, ...]

    @property
    def thoughts(self) -> tuple[Block, ...]:
        """The `<think>` blocks."""
        return tuple(block for block in self.blocks if block.name == THINK)

    @property
    def answers(self) -> tuple[Block, ...]:
        """The `<answer>` blocks."""
        return tuple(block for block in self.blocks if block.name == ANSWER)

    @property
    def responses(self) -> tuple[Block, ...]:
        """The `<tool_response>` blocks, all forged: a completion never holds the environment's."""
        return tuple(block for block in self.blocks if block.name == RESPONSE)

    @property
    def answer(self) -> str:
        """Text of the last closed answer that holds more than tags, stripped; "" if none does."""
        full = (block for block in reversed(self.answers) if block.closed and block.content)
        return next((block.text.strip() for block in full), "")

    @property
    def balanced(self) -> bool:
        """Whether each tag is one of a pair `<x>` ... `</x>` with no tag in between."""
        if len(self.tags) % 2:
            return False
        pairs = zip(self.tags[::2], self.tags[1::2], strict=True)
        return all(a.name == b.name and not a.closing and b.closing for a, b in pairs)

    def roles(self) -> list[tuple[int, int, Role]]:
        """Spans (start, end, role) that cover the text without gap or overlap, in order.

        Every tag has the role `tag`, also one written inside a block.
        """
        edges = [(tag.start, tag.end) for tag in self.tags]
        owners = iter(self.blocks)
        owner = next(owners, None)
        spans: list[tuple[int, int, Role]] = []
        position = 0
        for start, end in [*edges, (len(self.text), len(self.text))]:
            if start > position:
                while owner is not None and owner.end <= position:
                    owner = next(owners, None)
                inside = owner is not None and owner.start < position
                role = ROLE_OF_TAG[owner.name] if owner is not None and inside else Role.text
                spans.append((position, start, role))
            if end > start:
                spans.append((start, end, Role.tag))
            position = end
        return spans
