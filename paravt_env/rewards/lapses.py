"""What a model wrote against the protocol and the environment accepted, counted.

Logged beside the reward, never part of it; compliance says whether a rollout kept to the form.
Tests: `pytest tests/protocol/test_lenient.py`.
"""

from __future__ import annotations

from pathlib import PurePath

from paravt_env.protocol.lenient import REPAIRS
from paravt_env.rewards.transcript import Transcript

FOREIGN_PATH = "foreign_path"
LAPSES = (FOREIGN_PATH, *REPAIRS)


def lapses(transcript: Transcript) -> dict[str, int]:
    """Calls of an episode by lapse: those that name another video's path, those repaired.

    A path is ignored, as the published executor does: there is one video.
    """
    own = PurePath(transcript.task.medium)
    names = ("", transcript.task.medium, own.name, own.stem)
    counts = dict.fromkeys(LAPSES, 0)
    for turn in transcript.turns:
        for call in turn.parsed.calls if turn.parsed is not None else ():
            counts[FOREIGN_PATH] += (call.video_path or "") not in names
            for repair in call.repairs:
                counts[repair] += 1
    return counts
