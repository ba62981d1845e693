"""The `synthetic` task set: a world of long videos, made on first use, with no downloads.

Start of the journey: plan (`world`) -> mp4 (`render`) -> questions (`questions`) -> files
(`generate`) -> `SyntheticTasks`. `oracle` knows what a policy could see; `stats` measures how much
looking is worth. Make and measure it with `paravt data make` and `paravt data stats`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paravt_env.task import TaskError
from paravt_env.tasksets.jsonl import JsonlTasks
from paravt_env.tasksets.synthetic.generate import cache_root, make_split
from paravt_env.tasksets.synthetic.world import SPLITS, WorldSettings

DEFAULT_VIDEOS = {"train": 48, "val": 8, "test": 24}


class SyntheticTasks(JsonlTasks):
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

    def __init__(
        self,
        split: str = "train",
        root: str | Path | None = None,
        videos: int | None = None,
        progress: bool = True,
        **dials: Any,
    ):
        if split not in SPLITS:
            raise TaskError(f"synthetic: unknown split {split!r}; known: {', '.join(SPLITS)}")
        count = DEFAULT_VIDEOS[split] if videos is None else videos
        if count < 1:
            raise TaskError(f"synthetic: videos must be at least 1, not {count}")
        self.settings = WorldSettings.from_dials(dials)
        folder = cache_root() if root is None else Path(root).expanduser()
        super().__init__(
            make_split(self.settings, split, count, folder, progress), name="synthetic"
        )
