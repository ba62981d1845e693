"""The `atari` task set: real long games, recorded on first use, answered by the emulator.

Start of the journey: games (`games`) -> players (`players`) -> what is on when (`plan`) -> mp4 and
log (`record`) -> what can be asked (`moments`) -> questions (`questions`) -> files (`generate`) ->
`AtariTasks`. Needs `pip install 'paravt[atari]'`; record with `paravt data make atari`.
"""

from __future__ import annotations

from paravt_env.tasksets.made.atari.generate import make_split
from paravt_env.tasksets.made.atari.plan import AtariSettings
from paravt_env.tasksets.made.base import MadeTasks

DEFAULT_VIDEOS = {"train": 24, "val": 4, "test": 12}


class AtariTasks(MadeTasks):
    """A split of recorded games; missing videos are recorded when it is constructed.

    Splits share no video and no seed. Keyword arguments beyond the named ones are the dials of
    `AtariSettings`.

    Args:
        split: `train`, `val` or `test`.
        root: Cache folder; default `$PARAVT_CACHE`, or `~/.cache/paravt`.
        videos: How many videos; default 24, 4 and 12.
        progress: Whether to show a progress bar on stderr while videos are recorded.
        **dials: Fields of `AtariSettings`, such as `minutes=(10, 20)`.

    Raises:
        TaskError: `ale-py` is not installed, unknown split or dial, or dials that do not go
            together.
        OSError: The cache folder cannot be written.
    """

    dials = AtariSettings
    default_videos = DEFAULT_VIDEOS
    make = staticmethod(make_split)
