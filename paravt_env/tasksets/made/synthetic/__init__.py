"""The `synthetic` task set: a world of long videos, made on first use, with no downloads.

Start of the journey: plan (`world`) -> mp4 (`render`) -> questions (`questions`) -> files
(`generate`) -> `SyntheticTasks`. `oracle` knows what a policy could see; `stats` measures how much
looking is worth. Make and measure it with `paravt data make` and `paravt data stats`.
"""

from __future__ import annotations

from paravt_env.tasksets.made.base import MadeTasks
from paravt_env.tasksets.made.synthetic.generate import make_split
from paravt_env.tasksets.made.synthetic.world import WorldSettings

DEFAULT_VIDEOS = {"train": 48, "val": 8, "test": 24}


class SyntheticTasks(MadeTasks):
    """A split of the synthetic world; missing videos are made when it is constructed.

    Splits share no video and no seed. Keyword arguments beyond the named ones are the dials of
    `WorldSettings`.

    Args:
        split: `train`, `val` or `test`.
        root: Cache folder; default `$PARAVT_CACHE`, or `~/.cache/paravt`.
        videos: How many videos; default 48, 8 and 24.
        progress: Whether to show a progress bar on stderr while videos are made.
        **dials: Fields of `WorldSettings`, such as `event_seconds=6`.

    Raises:
        TaskError: Unknown split or dial, or dials that do not go together.
        OSError: The cache folder cannot be written.
    """

    dials = WorldSettings
    default_videos = DEFAULT_VIDEOS
    make = staticmethod(make_split)
