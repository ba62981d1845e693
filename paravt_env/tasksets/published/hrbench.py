"""HR-Bench (arXiv 2408.15556): pictures of 4K and 8K, multiple choice, options in four orders.

`load_tasks("hrbench", root=..., split="4k")`: the published Parquet file under `root` holds the
pictures, too, in base64; each is written to `root/pictures` when it is first read, as code and the
environment want files.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import ClassVar

from paravt_env.common.files import atomic_path, make_folder
from paravt_env.common.images import picture_size
from paravt_env.task import Task
from paravt_env.tasksets.published.base import PublishedTasks
from paravt_env.tasksets.rows import FieldError, Row

LETTERS = "ABCD"
FOLDER = "pictures"


class HRBenchTasks(PublishedTasks):
    """Splits `4k` and `8k`; see `PublishedTasks` for the arguments.

    Raises:
        OSError: A picture cannot be written under `root`.
    """

    set_name = "hrbench"
    hub_dataset = "DreamMr/HR-Bench"
    splits: ClassVar = {"4k": ("hr_bench_4k",), "8k": ("hr_bench_8k",)}
    columns = ("question", "answer", *LETTERS, "image")
    more_columns = ("index", "category", "cycle_category")

    def read(self, row: Row) -> Task:
        """The task of one row, its picture written."""
        options = tuple(row.label(letter) for letter in LETTERS)
        if not all(options):
            raise FieldError(LETTERS[options.index("")], "an option is empty")
        number = row.label("index") or str(self.position - 1)
        category = row.label("category")
        return Task(
            id=f"{self.split}-{number}",
            video="",
            images=(self._picture(row),),
            question=row.text("question"),
            kind="mcq",
            options=options,
            answer=self.letter(row, "answer", len(options)),
            category=category,
            source=self.name,
            family=category,
            metadata={"cycle": row.label("cycle_category")},
        )

    def _picture(self, row: Row) -> str:
        """Path of the row's picture: rows with the same one (the four orders) share a file."""
        try:
            data = base64.b64decode(row.text("image"), validate=True)
        except binascii.Error as error:
            raise FieldError("image", f"no base64: {error}") from error
        if picture_size(data) is None:
            raise FieldError("image", "no PNG or JPEG picture in it")
        ending = "png" if data[:4] == b"\x89PNG" else "jpg"
        name = hashlib.sha256(data).hexdigest()[:16]
        path = self.root / FOLDER / f"{name}.{ending}"
        if not path.is_file():
            make_folder(path.parent)
            with atomic_path(path) as draft:
                draft.write_bytes(data)
        return self._first("image", [str(path)])
