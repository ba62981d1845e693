"""Wrappers: other shapes of the environment, and records of what happens in it.

Around `LongVideoEnv` and its vector form, at the end of the simulation's journey: texts as actions
(`text`), arrays alone for classic RL (`arrays`), statistics of the reward terms (`reward_terms`),
episodes in a folder (`recorders`). Run the tests with `pytest tests/wrappers/test_wrappers.py
tests/show/test_recording.py`.
"""

from paravt_env.wrappers.arrays import ArrayAction, ArrayCodec, ArrayObservation
from paravt_env.wrappers.recorders import RecordEpisodes, VectorRecordEpisodes
from paravt_env.wrappers.reward_terms import RecordRewardTerms, VectorRecordRewardTerms
from paravt_env.wrappers.text import (
    CompletionAction,
    LongVideoTextEnv,
    VectorCompletionAction,
    make_text_vector,
)

__all__ = [
    "ArrayAction",
    "ArrayCodec",
    "ArrayObservation",
    "CompletionAction",
    "LongVideoTextEnv",
    "RecordEpisodes",
    "RecordRewardTerms",
    "VectorCompletionAction",
    "VectorRecordEpisodes",
    "VectorRecordRewardTerms",
    "make_text_vector",
]
