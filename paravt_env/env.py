"""`LongVideoEnv`: the single environment, a simulation (`episode/simulation.py`) with one row.

Make one with `gym.make("paravt_env:ParaVT-LongVideo-v0")`; run its tests with `pytest
tests/env/test_env.py`.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from paravt_env.common.names import known_name
from paravt_env.episode.episode import Episode
from paravt_env.episode.reset_options import RESET_OPTIONS
from paravt_env.episode.simulation import Failure, Simulation, redrawn
from paravt_env.rewards import Transcript
from paravt_env.settings import make_settings
from paravt_env.show.render import RENDER_MODES, contact_sheet, describe, render_row
from paravt_env.show.screen import Screen
from paravt_env.spaces import Action, Observation, unbatch
from paravt_env.task import Task, TaskSet

HUMAN = "human"


class LongVideoEnv(gym.Env[Observation, Action]):
    """Answer a question about a long video by looking at some moments of it closely.

    ## Description

    The agent is shown K overview frames spread over a video of minutes to hours, and a question
    whose evidence is often between them. In each turn it may crop several windows of the video at
    once, each of which comes back as frames at a higher rate, and then it answers. Cropping
    everything is not a policy: windows are short, calls and turns are few.

    ## Mission Space

    The mission is the question, `observation["question"]`: text, with one line `A. ...` for each
    option where it has options. Its kind is `mcq` (the answer is a letter), `open` (a few words) or
    `grounding` (`start-end` in seconds). The task set decides which questions there are:
    `tasks` names one, and `env.unwrapped.simulation.tasks` holds them.

    ## Action Space

    `Dict` (P is `max_crops`):

    - `crops`: float64 (P, 2), start and end of each window in seconds. Unbounded: the environment
      validates each window and answers a bad one with a status, while its neighbours run.
    - `crop_mask`: int8 (P,), which rows of `crops` are calls.
    - `crop_fps`, with the argument `crop_density=True` alone: float64 (P,), frames a second of each
      crop above 0, at most `frames_per_crop` frames; NaN, or the key left out: the argument
      `crop_fps`.
    - `answer`: text, "" for none.
    - `completion`: the text that crops and answer were parsed from, "" for agents that write none.
      The environment parses it again, and an action that contradicts the parse raises
      `ValueError`.
      `ParaVT-LongVideo-Text-v0` and `wrappers.CompletionAction` take such a text as the action.

    Libraries that act with arrays alone: `ArrayObservation(ArrayAction(env))` of `wrappers`.

    ## Observation Space

    `Dict` (F is the larger of the largest K and P times `frames_per_crop`):

    - `frames` uint8 (F, H, W, 3), `timestamps` float64 (F,) in seconds, `window` int16 (F,): -1
      padding, 0 overview, i a frame of the i-th call of the turn before. The overview is shown
      once, at `reset`.
    - `question`: the question with its options, one a line.
    - `video`: `duration` (seconds), `fps`, `width`, `height` (stored pixels, upright).
    - `turn`: turns taken. `must_answer`: 1 if the next turn is the forced one.
    - `crop_status`: int8 (P,), 0 for no call, else 1 + the index of the status in
      `crop.CROP_STATUSES`.
    - `feedback`: one line for each call that did not run, "" when all did.
    - `output`: with `tool="code"` alone: what code wrote; at `reset`, how large the images are.
    - `subtitles`: with the argument `subtitles=True`, what is said at the overview's times and
      inside the crops, one line each: window, start, end (seconds), words, between tabs; else "".

    ## Rewards

    0 until the episode ends, then the weighted sum of the terms that the preset uses (of `paravt`:
    `answer`, `format_anchor`, `tool_gain`) over the whole transcript. `info["reward_terms"]` holds
    their unweighted values and the `total`; `answer` is among them whatever its weight.

    ## Starting State

    `reset` draws a task, then K, from `np_random`; `options={"task_id": ..., "frame_budget": ...}`
    fix either. Rows with the same seed start alike. A video that cannot be read raises `VideoError`
    (`task_id`, `path`, `reason`); with `on_video_error="redraw"` another task is drawn in its
    place, `info["redrawn"]` lists the tasks that were passed over, and
    `env.unwrapped.simulation.video_errors` counts them.

    `info` holds `task_id`, `frame_budget` (K), `crops` (window, clipped, status, message, frames,
    timestamps of each call of the latest turn; with `crop_density` also `fps`), `frames_seen`,
    `slow_frames` (those of them that only a decode from further back than needed gave: see
    `docs/video.md`), `turn`; at the end also `reward_terms`, `stop_reason`, `answer` (the one that
    counted), `correct` (the answer term), `compliant` (`rewards.compliance`) and, for a task with
    gold evidence, `evidence_recall` (the share of the gold seconds that the crops covered).

    Where an LLM judge gave no verdict on the answer, nothing is scored: the reward is 0,
    `stop_reason` is `judge_error`, `reward_terms` and `correct` are NaN, and `error` says why.
    Training masks such an episode out; an evaluation counts it as an error.

    ## Termination

    | the turn holds | what happens |
    |---|---|
    | calls (with or without an answer) | the crops run; the answer does not count yet; next turn |
    | an answer, no call | terminated, `answered` |
    | neither | the forced-answer turn (once) |
    | forced turn, an answer | terminated, `answered` |
    | forced turn, no answer | terminated, `unanswered` |

    The forced turn also follows the `max_turns`-th turn with calls. Crops are refused in it.

    With `force_answer=False` there is no forced turn: the third row terminates as `unanswered`, and
    the `max_turns`-th turn with calls truncates as `turn_limit`.

    ## Registered Configurations

    - `ParaVT-LongVideo-v0`: parallel crops, K one of 4, 8, 16, 32, 64.
    - `ParaVT-LongVideo-Sequential-v0`: one crop a turn, five turns.
    - `ParaVT-LongVideo-OnDemand-v0`: no overview (K = 0); frames come only from crops.
    - `ParaVT-LongVideo-Frames-v0`: asks agents to take the frames of crops into their context
      (`evidence="frames"`) where the others ask for a sub-agent's text. Agents decide how to use
      frames, so observations and rewards are those of `ParaVT-LongVideo-v0`; agents whose own
      setting is None do as `env.unwrapped.simulation.settings.evidence` asks.
    - `ParaVT-LongVideo-Text-v0`: the action is a completion, `env.step(text)`, with the tags and
      the tool call of `protocol`; in `gym.make_vec` a sequence with one text a row.

    - `ParaVT-LongVideo-Density-v0`: a call may choose its density (`crop_density=True`), and all
      crops of an episode show at most 128 frames (`crop_quota=128`).

    - `ParaVT-LongVideo-Code-v0`: the tool is Python in a sandbox (`tool="code"`): a turn's
      completion may hold one `<code>` block. No overview, five turns.
    - `ParaVT-Image-v0`: the same for tasks about images, which are shown scaled down.

    Every keyword argument below replaces a variant's own; the ids differ in those alone.

    Args:
        tasks: Name of a task set, path of a `.jsonl` manifest, or a `TaskSet`.
        render_mode: None; "rgb_array", a contact sheet of the observation's frames; "ansi", the
            observation in words; "html", both as a piece of HTML; "human", both in a window that
            follows `reset` and `step` (needs pygame: `pip install 'paravt[human]'`).
        **settings: See `settings.EnvSettings`, which lists every further argument and its default.

    Raises:
        ValueError: An unknown argument, or a value of the wrong type or range.
        SandboxError: `tool="code"`, and code cannot be isolated on this machine.
    """

    metadata = {"render_modes": [*RENDER_MODES, HUMAN], "render_fps": 1}  # noqa: RUF012

    def __init__(
        self, tasks: str | TaskSet = "synthetic", *, render_mode: str | None = None, **settings: Any
    ) -> None:
        self.simulation = Simulation(make_settings({"tasks": tasks, **settings}))
        self.observation_space = self.simulation.observation_space
        self.action_space = self.simulation.action_space
        if render_mode is not None:
            known_name("render_mode", render_mode, self.metadata["render_modes"])
        self.render_mode = render_mode
        self._screen = Screen(self.metadata["render_fps"]) if render_mode == HUMAN else None
        self._episode: Episode | None = None

    @property
    def task(self) -> Task:
        """The current task; privileged (it holds the gold answer)."""
        return self._running().task

    @property
    def transcript(self) -> Transcript:
        """What was said and executed in the current episode."""
        return self._running().transcript

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Seeds `np_random`; None continues it.
            options: `task_id` and `frame_budget`, each optional.

        Raises:
            ValueError: An option that does not exist, or a value out of range.
            VideoError: The task's video cannot be read; with `on_video_error="redraw"`, those of
                all tasks that were drawn.
        """
        super().reset(seed=seed)
        options = options or {}
        for name in options:
            known_name("reset option", name, RESET_OPTIONS)
        ((row, passed),) = self.simulation.begin(
            [self.np_random], [options.get("task_id")], [options.get("frame_budget")]
        )
        self._episode = None
        if isinstance(row, Failure):
            raise row.error
        self._episode = row
        return self._shown(), row.info() | redrawn(passed)

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play one turn.

        Raises:
            ValueError: The action has the wrong shape or contradicts its completion; the episode
            has not moved. RuntimeError: The episode is over or was never started.
        """
        episode = self._running()
        result = self.simulation.step({0: episode}, {0: action})[0]
        return self._shown(), result.reward, result.terminated, result.truncated, result.info

    def render(self) -> Any:
        """The current observation as an image or as text, by `render_mode`; "human" gives None.

        In that mode the window follows `reset` and `step` by itself.
        """
        if self.render_mode is None:
            return None
        if self._screen is not None:
            self._shown()
            return None
        return render_row(self.render_mode, self._observe())

    def close(self) -> None:
        """Stop the decoding threads and close the window."""
        self.simulation.close()
        if self._screen is not None:
            self._screen.close()

    def _shown(self) -> Observation:
        """The current observation, which the window shows, where there is one."""
        observation = self._observe()
        if self._screen is not None:
            self._screen.show(contact_sheet(observation), describe(observation))
        return observation

    def _running(self) -> Episode:
        if self._episode is None:
            raise RuntimeError("there is no episode: call reset() first")
        return self._episode

    def _observe(self) -> Observation:
        return unbatch(self.simulation.observe([self._running()]), 0, self.observation_space)
