"""Read an action: which calls of the turn run, which are refused and why, and what it answers.

The stretch between the agent and `decode_crops.run_crops`. Nothing that an agent says of its
completion is believed: the parser's own structure says what was malformed or called by the wrong
name, and an action that contradicts its completion is a bug of the agent, which raises. Run the
tests with `pytest tests/env/test_env.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from paravt_env.crop import (
    CHOSEN_BY_SETTING,
    NO_WINDOW,
    CodeRequest,
    CropRequest,
    CropResult,
    CropStatus,
    Window,
    check_window,
)
from paravt_env.episode.episode import Episode, TurnPlan
from paravt_env.protocol.parser import action_of, parse
from paravt_env.protocol.structure import ToolCall
from paravt_env.protocol.untagged import untagged_answer
from paravt_env.spaces import Action, refuse_density

_NO_DENSITY = "fps must be a number of frames a second above 0: leave it out for {:g}"


def read_turn(action: Mapping[str, Any], episode: Episode) -> TurnPlan:
    """Read one action; the episode does not move.

    In its forced turn every call is `refused`; calls past `max_crops` are `over_limit`. A path that
    a call names is neither opened nor compared: there is one video. A crop that would show more
    frames than the episode's quota has left is `over_quota`; those behind it in the turn that fit
    still run. Where the tool is code, a crop is a call of an unknown tool; code comes in the
    completion alone.

    Args:
        action: A member of `spaces.action_space(max_crops)`.
        episode: The one that the action is for.

    Raises:
        ValueError: The action does not have the declared shape, or contradicts its own completion.
    """
    settings, task = episode.settings, episode.task
    max_crops, density = settings.max_crops, settings.crop_density
    left = settings.crop_quota - episode.crop_frames_seen
    crops, mask, answer, completion = _checked(action, max_crops)
    rates = _checked_rates(action, max_crops, density)
    how = {"lenient": settings.lenient_calls, "code": settings.tool == "code"}
    parsed = parse(completion, **how) if completion else None
    calls: list[CropRequest | CodeRequest | CropResult] = []
    if parsed is None:
        asked: list[ToolCall | Window] = [(float(a), float(b)) for a, b in crops[mask]]
        wanted = rates[mask].tolist()
    else:
        _agree(action_of(parsed, max_crops, density), crops, mask, answer, rates)
        asked = list(parsed.calls)
        wanted = [call.fps if density else CHOSEN_BY_SETTING for call in parsed.calls]
    for i, (call, fps) in enumerate(zip(asked, wanted, strict=True)):
        window = call if isinstance(call, tuple) else (call.window or NO_WINDOW)
        refusal: tuple[CropStatus, str] | None = None
        if episode.must_answer:
            refusal = CropStatus.refused, "this turn takes no calls: give the answer"
        elif i >= max_crops:
            refusal = CropStatus.over_limit, f"a turn takes {max_crops} calls at most"
        elif not isinstance(call, tuple) and call.error is not None:
            refusal = CropStatus(call.error), call.message
        code = None if isinstance(call, tuple) else call.code
        if refusal is None and code is not None:
            calls.append(CodeRequest(code))
            continue
        if refusal is None and settings.tool == "code":
            refusal = CropStatus.unknown_tool, "the only tool is code, between code tags"
        if refusal is None and not (math.isnan(fps) or 0 < fps < math.inf):
            refusal = CropStatus.malformed, _NO_DENSITY.format(settings.crop_fps)
        if refusal is not None:
            calls.append(CropResult(window, None, *refusal, fps=fps))
            continue
        status, clipped, message = check_window(
            window, episode.video.duration, settings.max_crop_seconds
        )
        if clipped is not None and settings.crop_frames is not None and settings.crop_quota:
            frames = settings.crop_frames.planned(clipped, fps)
            if frames > left:
                status, clipped = CropStatus.over_quota, None
                message = (
                    f"the crop has {frames} frames; {left} of the {settings.crop_quota} that crops "
                    "may show in all are left"
                )
            else:
                left -= frames
        if clipped is None:
            calls.append(CropResult(window, None, status, message, fps=fps))
        else:
            calls.append(CropRequest(task.video, window, clipped, fps))
    answer, untagged = answer.strip(), False
    if not answer and parsed is not None and settings.untagged_answers:
        answer = "" if calls and not episode.must_answer else untagged_answer(parsed)
        untagged = bool(answer)
    return TurnPlan(parsed, answer, tuple(calls), untagged)


def _checked(action: Mapping[str, Any], max_crops: int) -> tuple[np.ndarray, np.ndarray, str, str]:
    if not isinstance(action, Mapping):
        raise ValueError(
            f"the action is a mapping as from spaces.empty_action(), not {action!r}; to act with "
            "texts make ParaVT-LongVideo-Text-v0"
        )
    missing = {"crops", "crop_mask", "answer", "completion"} - set(action)
    if missing:
        raise ValueError(
            f"the action lacks {', '.join(sorted(missing))}; start from spaces.empty_action()"
        )
    crops = np.asarray(action["crops"], np.float64)
    mask = np.asarray(action["crop_mask"])
    if crops.shape != (max_crops, 2) or mask.shape != (max_crops,):
        raise ValueError(
            f"crops must have shape ({max_crops}, 2) and crop_mask ({max_crops},), "
            f"not {crops.shape} and {mask.shape}"
        )
    answer, completion = action["answer"], action["completion"]
    if not isinstance(answer, str) or not isinstance(completion, str):
        raise ValueError("answer and completion must be strings")
    if not np.isin(mask, (0, 1)).all():
        raise ValueError(f"crop_mask holds 0 and 1, not {mask}")
    return crops, mask.astype(bool), answer, completion


def _checked_rates(action: Mapping[str, Any], max_crops: int, density: bool) -> np.ndarray:
    """Frames a second of each crop, (P,), NaN where the setting says."""
    given = action.get("crop_fps")
    if not density:
        refuse_density(given)
        given = None
    if given is None:
        return np.full(max_crops, CHOSEN_BY_SETTING)
    rates = np.asarray(given, np.float64)
    if rates.shape != (max_crops,):
        raise ValueError(f"crop_fps must have shape ({max_crops},), not {rates.shape}")
    return rates


def _agree(
    expected: Action, crops: np.ndarray, mask: np.ndarray, answer: str, rates: np.ndarray
) -> None:
    said = np.flatnonzero(mask & ~np.isnan(rates))  # a rate that is left out contradicts nothing
    same_rates = not len(said) or np.array_equal(expected["crop_fps"][said], rates[said])
    same_mask = np.array_equal(expected["crop_mask"].astype(bool), mask)
    same_crops = np.array_equal(expected["crops"][mask], crops[mask], equal_nan=True)
    if not (same_mask and same_crops and same_rates and expected["answer"] == answer):
        raise ValueError(
            "the action's crops and answer are not those of its completion: build it with "
            "protocol.action_from_completion(), or leave completion empty"
        )
