"""Episodes of models that call tools natively: what they are shown, and what their messages earn.

Shared by the adapters whose peer runs the conversation (TRL, verifiers). Such a peer hands over one
call at a time and keeps the words between the calls to itself until the end. So an episode is
played twice: call by call for the pictures, and at the end, with every message written as the text
that our own agents write, by the environment's own step. Rewards are those of
`ParaVT-LongVideo-Text-v0` to the last bit, and the frames are in the store already. Tests: `pytest
tests/adapters/test_tool_calling.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from gymnasium.utils import seeding

from agents.chat.text import completion_text, native_calls, one_call
from agents.text.context import IM_END
from paravt_env.episode.episode import Episode
from paravt_env.episode.simulation import Failure, Simulation, Start
from paravt_env.protocol.parser import action_of, parse
from paravt_env.protocol.parts import (
    Part,
    evidence_parts,
    forced_answer_text,
    overview_parts,
    system_text,
)
from paravt_env.protocol.schema import TOOL_NAME
from paravt_env.protocol.styles import PromptStyle, prompt_style
from paravt_env.protocol.tags import RESPONSE, TAG_PATTERN, THINK, closing, opening
from paravt_env.settings import make_settings
from paravt_env.spaces import Observation, unbatch
from paravt_env.task import TaskSet

Message = Mapping[str, Any]
"""One message of a chat, in the form of OpenAI's API."""

SILENCE = " "
"""The text of a turn in which nothing was written."""

UNREADABLE = "The video cannot be read."
"""What a model is told whose video could not be opened: its episode is over, and never scored."""
OVER = "The episode is over: no more calls are allowed."
"""What a call is told that comes after the episode has ended."""


class Played(NamedTuple):
    """What a rollout earned: its unweighted terms, none with an `error`, and how it ended."""

    terms: dict[str, float]
    stop_reason: str
    error: str = ""


class ToolCallingGame:
    """One simulation, whose episodes are shown as chat messages.

    Args:
        tasks: As for `LongVideoEnv`.
        style: A prompt style that leaves the list of tools to the chat template.
        **settings: As for `LongVideoEnv`.

    Attributes:
        simulation: Shared by all episodes, its decoded frames too.

    Raises:
        ValueError: As `LongVideoEnv`; or the style lists the tools itself.
    """

    def __init__(
        self, tasks: str | TaskSet = "synthetic", style: str = "tool_calling", **settings: Any
    ) -> None:
        self.style: PromptStyle = prompt_style(style)
        if "{tools}" in self.style.system:
            raise ValueError(
                f"the prompt style {style!r} lists the tool, and so does the chat template: use "
                "the style 'tool_calling', or one of your own without {tools}"
            )
        self.simulation = Simulation(make_settings({"tasks": tasks, **settings}))

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each reward term that is computed."""
        return self.simulation.preset.weights

    @property
    def system(self) -> str:
        """The system message."""
        limits = self.simulation.settings
        return system_text(
            self.style, limits.max_crops, limits.max_crop_seconds, limits.max_turns
        ).strip()

    def start(
        self, task_id: str | None = None, frame_budget: int | None = None, seed: int | None = None
    ) -> Start:
        """The start that `env.reset(seed=seed, options={"task_id": ..., "frame_budget": ...})` has.

        Raises:
            ValueError: No such task, or more frames than an observation holds.
        """
        return drawn_start(self.simulation, task_id, frame_budget, seed)

    def begin(self, start: Start) -> Episode | Failure:
        """Open the video and decode the overview."""
        (row,) = self.simulation.start([start])
        return row

    def see(self, episode: Episode) -> Observation:
        """What the episode shows now."""
        batch = self.simulation.observe([episode])
        return unbatch(batch, 0, self.simulation.observation_space)

    def opening(self, view: Observation) -> list[Part]:
        """The user's message: overview, question and, where nothing may be called, what to do."""
        parts = overview_parts(self.style, view)
        return [*parts, "\n" + forced_answer_text(self.style)] if view["must_answer"] else parts

    def crop(
        self, episode: Episode, calls: Sequence[Mapping[str, Any]]
    ) -> tuple[Observation, list[list[Part]]]:
        """Run the calls of one turn in one step.

        Args:
            episode: Moves by one turn.
            calls: The arguments of each call, as the model wrote them.

        Returns:
            What is shown now, and for each call the parts of its answer; the last answer also says
            when no further call is allowed.
        """
        action = action_of(parse(calls_text(calls)), self.simulation.settings.max_crops)
        self.simulation.step({0: episode}, {0: action})
        view = self.see(episode)
        answers = []
        for place in range(len(calls)):
            parts = evidence_parts(self.style, one_call(view, place), action["crops"])
            answers.append([bare for part in parts if (bare := _bare(part)) != ""])
        if view["must_answer"]:
            answers[-1].append("\n" + forced_answer_text(self.style))
        return view, answers

    def score(self, starts: Sequence[Start], chats: Sequence[Sequence[Message]]) -> list[Played]:
        """Play rollouts again, from their starts and with every word that was written.

        Args:
            starts: Where the rollouts began.
            chats: The messages of each; those of the assistant are its turns. A rollout that stops
                before its episode is over ends unanswered.

        Returns:
            One result each, in order. A video that cannot be read and a judge that fails are
            results with an `error`.
        """
        texts = [[turn_text(m) for m in chat if m.get("role") == "assistant"] for chat in chats]
        rows = dict(enumerate(self.simulation.start(starts)))
        results = {
            row: Played({}, str(state.info()["stop_reason"]), str(state.error))
            for row, state in rows.items()
            if isinstance(state, Failure)
        }
        turn = 0
        while running := {
            row: state
            for row, state in rows.items()
            if isinstance(state, Episode) and row not in results
        }:
            actions = {}
            for row in running:
                text = texts[row][turn] if turn < len(texts[row]) else SILENCE
                actions[row] = action_of(parse(text), self.simulation.settings.max_crops)
            for row, step in self.simulation.step(running, actions).items():
                if step.terminated or step.truncated:
                    error = str(step.info.get("error", ""))
                    said = {} if error else step.info["reward_terms"]
                    terms = {name: float(said[name]) for name in self.weights if name in said}
                    results[row] = Played(terms, str(step.info["stop_reason"]), error)
            turn += 1
        return [results[row] for row in range(len(starts))]

    def close(self) -> None:
        """Stop the decoding threads."""
        self.simulation.close()


def drawn_start(
    simulation: Simulation, task_id: str | None, frame_budget: int | None, seed: int | None
) -> Start:
    """The start that `env.reset` draws from a seed, as far as it is not given."""
    return simulation.draw(seeding.np_random(seed)[0], task_id, frame_budget)


def calls_text(calls: Iterable[Mapping[str, Any]]) -> str:
    """The text of a turn that holds nothing but calls of the tool with these arguments."""
    functions = [{"name": TOOL_NAME, "arguments": dict(call)} for call in calls]
    return completion_text("", {"tool_calls": [{"function": one} for one in functions]}, [{}])


def turn_text(message: Message) -> str:
    r"""An assistant's message as the text that the environment parses: thought, content, calls.

    Chat templates cut a thought out of the text whether it was closed or not. One that nothing
    follows counts as never closed: no peer says more, and it is no whole turn either way.

    >>> turn_text({"reasoning_content": "red", "content": "<answer>B</answer>"})
    '<think>\nred\n</think>\n<answer>B</answer>'
    >>> turn_text({"reasoning_content": "on and on", "content": ""})
    '<think>\non and on'
    """
    content = _plain_text(message.get("content"))
    calls = native_calls(message)
    thought = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thought, str) and thought.strip() and not content.strip() and not calls:
        thought = thought.strip().removesuffix(IM_END)  # cut off where it ends the content alone
        return f"{opening(THINK)}\n{TAG_PATTERN.sub('', thought).strip()}"
    return completion_text(content, message, calls) or SILENCE


def _plain_text(content: Any) -> str:
    """The text of a message's content, which may be a list of blocks."""
    if isinstance(content, list):
        return "".join(str(b.get("text", "")) for b in content if isinstance(b, Mapping))
    return content if isinstance(content, str) else ""


def _bare(part: Part) -> Part:
    """A part without the tags of a tool's response, which the chat template writes itself."""
    if not isinstance(part, str):
        return part
    return part.replace(f"{opening(RESPONSE)}\n", "").replace(f"\n{closing(RESPONSE)}\n", "")
