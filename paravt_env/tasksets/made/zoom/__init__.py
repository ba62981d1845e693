"""The `zoom` task set: large pictures whose small symbols can be told apart only from near.

Start of the journey for tasks about images: plan (`world`) -> PNG and questions (`generate`) ->
`ZoomTasks`. A picture is a grid of cells with a symbol in each; some cells have a frame in a colour
of their own, which is seen from afar, so it shows *where* to look. `stats` measures what zooming is
worth. Make and measure it with `paravt data make zoom` and `paravt data stats zoom`.
"""

from __future__ import annotations

from paravt_env.tasksets.made.base import MadeTasks
from paravt_env.tasksets.made.zoom.generate import make_split
from paravt_env.tasksets.made.zoom.world import ZoomSettings

DEFAULT_PICTURES = {"train": 200, "val": 24, "test": 96}


class ZoomTasks(MadeTasks):
    """A split of the zoom world; missing pictures are made when it is constructed.

    Splits share no picture and no seed. Keyword arguments beyond the named ones are the dials of
    `ZoomSettings`.

    Args:
        split: `train`, `val` or `test`.
        root: Cache folder; default `$PARAVT_CACHE`, or `~/.cache/paravt`.
        videos: How many pictures; default 200, 24 and 96.
        progress: Whether to show a progress bar on stderr while pictures are made.
        **dials: Fields of `ZoomSettings`, such as `symbol=24`.

    Raises:
        TaskError: Unknown split or dial, or dials that do not go together.
        OSError: The cache folder cannot be written.
    """

    dials = ZoomSettings
    default_videos = DEFAULT_PICTURES
    make = staticmethod(make_split)
