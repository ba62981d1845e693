"""The files of a set: letters dealt evenly video by video, every row in one file, nothing twice."""

from collections import Counter

from train.config.reason import ReasonConfig
from train.datagen.captions import Caption
from train.datagen.clips import Clip
from train.datagen.engine import Made
from train.datagen.judging import Verdict
from train.datagen.manifest import rejected_line, summed, tasks_of, unfinished
from train.datagen.questions import Row
from train.datagen.refusal import BudgetSpent, Rejected
from train.datagen.videos import Film


def film(name, digit):
    return Film(name, f"/{name}", digit * 32, "train", 100.0, (64, 64))


def verdict(made, video, number, error=None, **fields):
    row = Row(f"{video.name}:plot-{number}", video, "plot", f"What is {number}?", "So.", "yes",
              ("no", "may", "all"), (1,), ((0.0, 10.0),), "key")  # fmt: skip
    made.films[video.name] = video
    made.captions.setdefault(video.name, [Caption(Clip(1, 0.0, 10.0), "text", "k1")])
    made.verdicts[row.id] = Verdict(row, error, **fields)
    return row.id


def letters(planned, made, **changes):
    return [task.answer for task, _ in tasks_of(made, planned, ReasonConfig(**changes))]


def test_letters_are_dealt_evenly_over_what_is_kept_of_a_video():
    made, a = Made(), film("a.mp4", "a")
    planned = [
        verdict(made, a, n, Rejected("blind", "") if n % 3 == 0 else None) for n in range(12)
    ]
    assert Counter(letters(planned, made)) == {"A": 2, "B": 2, "C": 2, "D": 2}
    assert letters(planned, made) != letters(planned, made, seed=1)


def test_another_video_does_not_change_the_letters_of_a_video():
    alone, both = Made(), Made()
    rows = [verdict(alone, film("b.mp4", "b"), n) for n in range(6)]
    more = [verdict(both, film("a.mp4", "a"), n) for n in range(5)]
    rows_too = [verdict(both, film("b.mp4", "b"), n) for n in range(6)]
    assert letters(more + rows_too, both)[5:] == letters(rows, alone)


def test_every_planned_row_is_kept_rejected_or_pending():
    made, a = Made(), film("a.mp4", "a")
    planned = [
        verdict(made, a, 0, blind_first=True, blind_after=False),
        verdict(made, a, 1, Rejected("disagree", "solver 1"), blind_first=False),
        verdict(made, a, 2, BudgetSpent("")),
        "a.mp4:plot-3",
        "a.mp4:plot-4",
    ]
    made.errors["a.mp4:plot-3"] = Rejected("malformed", "question")
    made.errors["a.mp4:plot-4"] = BudgetSpent("")
    made.items["a.mp4:plot-3"] = {"question": 3}
    made.captions["a.mp4"].append((Clip(2, 10.0, 20.0), Rejected("no_reply", "timeout")))
    rejected = [line for row in planned if (line := rejected_line(row, made))]
    assert [(line["id"], line["reason"]) for line in rejected] == [
        ("a.mp4:plot-1", "disagree"), ("a.mp4:plot-3", "malformed")
    ]  # fmt: skip
    assert rejected[1]["row"] == {"question": 3}
    summary = summed(made, tasks_of(made, planned, ReasonConfig()), rejected, planned)
    assert [summary[name] for name in ("planned", "kept", "rejected", "pending")] == [5, 1, 2, 2]
    assert summary["clips_without_caption"] == {"no_reply": 1} and summary["clips"] == 2
    assert summary["blind"] == {"judged": 2, "judged_found": 1, "kept": 1, "kept_found": 0}
    assert "1 rows or clips got no reply" in unfinished(summary)
    assert unfinished({**summary, "clips_without_caption": {}}) == ""
