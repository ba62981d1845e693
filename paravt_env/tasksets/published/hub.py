"""Rows of a data set on the Hugging Face hub, where `datasets` is installed and the hub reachable.

Beside `tasksets/rows.py`: the same rows from another place. Videos always lie on disk. Needs the
`hub` extra; nothing here runs code of a data set. Tests use a stand-in: `pytest
tests/tasksets/test_tasksets.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from paravt_env.task import TaskError
from paravt_env.tasksets.rows import Place, Row


def hub_rows(
    dataset: str, config: str | None, splits: Sequence[str], columns: Sequence[str]
) -> Iterator[Row]:
    """The rows of the first of `splits` that the data set has.

    Args:
        dataset: `owner/name`.
        config: Configuration of the data set; None for its only one.
        splits: Names under which the split may be published.
        columns: Columns that are read, as far as they exist.

    Raises:
        TaskError: `datasets` is not installed, or the data set cannot be loaded.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise TaskError(
            f"reading {dataset} from the hub needs datasets: pip install 'paravt[hub]', or "
            "download it and give root="
        ) from error
    reasons = []
    for split in splits:
        try:
            table = datasets.load_dataset(dataset, config, split=split)
        except Exception as error:  # whatever the network, the hub or the files come up with
            reasons.append(f"split {split!r}: {type(error).__name__}: {error}")
            continue
        names = [name for name in columns if name in table.column_names]
        for number, row in enumerate(table.select_columns(names), 1):
            assert isinstance(row, Mapping)
            yield Row(row, Place(f"{dataset} ({split})", "row", number))
        return
    raise TaskError(f"{dataset} cannot be loaded from the hub: {'; '.join(reasons)}")
