"""Models that know the made worlds, behind a chat server: the data engine without a hub.

A captioner that recognises the film by its pixels and says exactly what the frames it was sent
show, a writer and solvers that read nothing but captions (or frames). So what is wrong with a row
comes from the way of the data - clips, frames, captions - or from mistakes that were asked for.
Deterministic: a reply is a function of the request.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import av
import numpy as np

from paravt_env.task import OPTION_LETTERS, Task
from paravt_env.tasksets.made.synthetic.oracle import scenes_of
from paravt_env.tasksets.made.synthetic.world import CORNERS, SYMBOLS
from paravt_env.video.store.store import FrameStore
from train.datagen import captions, questions, solvers

PART = re.compile(r"From ([\d.]+) s to ([\d.]+) s the ([\w ]+) scene is seen\.")
THING = re.compile(r"From ([\d.]+) s to ([\d.]+) s a ([\w ]+) is in the ([\w ]+) corner\.")
QUESTIONS = {
    "plot": "Which symbol appears in the {} scene?",
    "temporal": "Which symbol is the next to appear after that of the {} scene?",
    "spatial": "In which corner of the {} scene does a symbol appear?",
    "goal": "The goal is to show the symbol of the {} scene once more. Which scene does it?",
}
_ASKED = {name: re.compile(re.escape(text).replace(r"\{\}", "([\\w ]+)"))
          for name, text in QUESTIONS.items()}  # fmt: skip


WHOLE = "whole"
"""The corner of what fills the picture."""


class Fact(NamedTuple):
    """A scene, or a thing in a corner, on screen from `start` to `end` (seconds)."""

    start: float
    end: float
    part: str
    thing: str = ""
    corner: str = ""

    @property
    def time(self) -> float:
        """Its middle, seconds."""
        return (self.start + self.end) / 2


@dataclass(frozen=True)
class Film:
    """A video and all that is in it."""

    path: str
    facts: tuple[Fact, ...]


def synthetic(task: Task) -> Film:
    """The film of a synthetic task."""
    facts = []
    for scene in scenes_of(task):
        facts.append(Fact(scene.start, scene.end, scene.colour))
        facts += [Fact(e.start, e.end, scene.colour, e.symbol, e.corner) for e in scene.events]
    return Film(task.video, tuple(facts))


def atari(task: Task) -> Film:
    """The film of a recorded game: programmes are scenes, and what interrupts them is the thing."""
    facts = []
    for show in task.metadata["programmes"]:
        name, start, end = show["game"].replace("_", " "), show["start"], show["end"]
        if "cut" not in show:
            facts.append(Fact(start, end, name))
            continue
        cut = show["cut"]
        facts += [Fact(start, cut["start"], name), Fact(cut["end"], end, name)]
        facts.append(Fact(cut["start"], cut["end"], name, cut["game"].replace("_", " "), WHOLE))
    return Film(task.video, tuple(facts))


def seen(film: Film, times: Sequence[float]) -> list[Fact]:
    """What frames at these times show, each fact from its first to its last frame."""
    found = []
    for fact in film.facts:
        inside = [time for time in times if fact.start - 1e-6 <= time < fact.end - 1e-6]
        if inside:
            found.append(fact._replace(start=inside[0], end=inside[-1]))
    return sorted(found)


def in_words(facts: Sequence[Fact]) -> str:
    """A caption."""
    said = []
    for fact in facts:
        span = f"From {fact.start:.1f} s to {fact.end:.1f} s"
        said.append(
            f"{span} a {fact.thing} is in the {fact.corner} corner."
            if fact.thing
            else f"{span} the {fact.part} scene is seen."
        )
    return " ".join(said)


def read_facts(text: str) -> list[Fact]:
    """What captions say; a thing is in the scene of its time, or of the time before it."""
    parts = [Fact(float(a), float(b), part) for a, b, part in PART.findall(text)]
    things = []
    for a, b, thing, corner in THING.findall(text):
        start, end = float(a), float(b)
        around = [part for part in parts if part.start <= end and start <= part.end]
        before = [part for part in parts if part.end < start]
        if around or before:
            part = max(around or before, key=lambda one: (min(one.end, end), one.start)).part
            things.append(Fact(start, end, part, thing, corner))
    return sorted(parts + things)


class Known(NamedTuple):
    """What a reader of all captions knows of a scene's things."""

    part: str
    thing: str
    corners: tuple[str, ...]
    start: float


def things_of(facts: Sequence[Fact]) -> list[Known]:
    """The first thing of each scene with all its corners, in the order of appearance."""
    known: dict[str, Known] = {}
    for fact in sorted(facts):
        if not fact.thing:
            continue
        one = known.setdefault(fact.part, Known(fact.part, fact.thing, (), fact.start))
        if fact.thing == one.thing and fact.corner not in one.corners:
            known[fact.part] = one._replace(corners=(*one.corners, fact.corner))
    return list(known.values())


def answer_to(question: str, facts: Sequence[Fact]) -> tuple[str, ...]:
    """All right answers to a question of ours, by the facts; empty where they do not say."""
    things = things_of(facts)
    for category, pattern in _ASKED.items():
        match = pattern.fullmatch(question)
        asked = match and next((one for one in things if one.part == match[1]), None)
        if not asked:
            continue
        if category == "plot":
            return (asked.thing,)
        if category == "spatial":
            return asked.corners
        later = [one for one in things if one.start > asked.start]
        if category == "temporal":
            return (later[0].thing,) if later else ()
        return tuple(o.part for o in things if o.thing == asked.thing and o.part != asked.part)
    return ()


def is_right(film: Film, question: str, answer: str, wrong: Sequence[str]) -> bool:
    """Whether the answer, and none of the wrong options, is true in the film."""
    true = answer_to(question, film.facts)
    return answer in true and not any(option in true for option in wrong)


def is_right_task(film: Film, task: Task) -> bool:
    """The same of a task."""
    gold = task.options[OPTION_LETTERS.index(task.answer)]
    return is_right(film, task.question, gold, [one for one in task.options if one != gold])


class Models:
    """A captioner, a writer and solvers as one function of a request's body.

    Args:
        films: The films that the captioner knows.
        things: Names from which wrong options are taken.
        mistakes: Share of the clips whose things the captioner names wrongly.
    """

    def __init__(
        self, films: Sequence[Film], things: Sequence[str] = SYMBOLS, mistakes: float = 0.0
    ) -> None:
        self.films, self.things, self.mistakes = list(films), tuple(things), mistakes
        self.store = FrameStore()

    def close(self) -> None:
        self.store.close()

    def __call__(self, body: Mapping[str, Any]) -> dict[str, Any]:
        system, user = (message["content"] for message in body["messages"])
        if system == captions.SYSTEM:
            said = self.caption(user)
        elif system == questions.SYSTEM:
            said = json.dumps({"questions": self.write(json.loads(user))})
        else:
            said = json.dumps({"reasoning": "By what is seen.", "answer": self.solve(system, user)})
        told = user if isinstance(user, str) else [part for part in user if "text" in part]
        sent = len(json.dumps(told))
        return {
            "choices": [{"message": {"content": said}}],
            "usage": {"prompt_tokens": sent // 4, "completion_tokens": len(said) // 4},
        }

    def caption(self, parts: Sequence[Mapping[str, Any]]) -> str:
        """Exactly what the frames of a request show."""
        facts = self._looked_at(parts)
        first = f"{facts[0].start:.1f}" if facts else ""
        if share("mistake", in_words(facts), first) < self.mistakes:
            other = {t: self.things[(i + 1) % len(self.things)] for i, t in enumerate(self.things)}
            facts = [f._replace(thing=other[f.thing]) if f.thing else f for f in facts]
        return in_words(facts)

    def _looked_at(self, parts: Sequence[Mapping[str, Any]]) -> list[Fact]:
        """The film is recognised by its pixels: the wrong frame would be the wrong caption."""
        pictures = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        times = [float(part["text"][:-2]) for part in parts
                 if part["type"] == "text" and re.fullmatch(r"[\d.]+ s", part["text"])]  # fmt: skip
        assert len(pictures) == len(times) > 0
        pixels = decoded(pictures[0])

        def distance(film: Film) -> float:
            mine = self.store.frames(film.path, np.array(times[:1]), pixels.shape[:2]).pixels[0]
            return float(np.abs(mine.astype(int) - pixels).mean())

        film = min(self.films, key=distance)
        return seen(film, times)

    def write(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Questions of a category, by the captions alone."""
        category = asked["category"].partition(":")[0]
        clips = {one["clip"]: (one["start"], one["end"]) for one in asked["captions"]}
        facts = read_facts(" ".join(one["caption"] for one in asked["captions"]))
        things = things_of(facts)
        named = [one for one in things if not one.part.endswith("grey")]
        rows = []
        for one in sorted(named, key=lambda one: share(category, one.part)):
            question = QUESTIONS[category].format(one.part)
            true = answer_to(question, facts)
            others = {"spatial": CORNERS, "goal": [o.part for o in named if o != one]}
            pool = [o for o in others.get(category, self.things) if o not in true]
            if category == "spatial" and one.corners == (WHOLE,):
                continue
            if len(true) != 1 or len(pool) < asked["wrong"]:
                continue
            pool.sort(key=lambda o: share("wrong", question, o))
            meant = {one.part} | ({true[0]} if category == "goal" else set())
            if category == "temporal":
                meant |= {o.part for o in things if o.start > one.start and o.thing == true[0]}
            shown = [o for o in things if o.part in meant]
            times = [fact.time for fact in facts if fact.thing and fact.part in meant]
            evidence = [n for n, (a, b) in clips.items() if any(a <= t < b for t in times)]
            told = " ".join(
                f"At {o.start:.1f} s the {o.part} scene shows a {o.thing}." for o in shown
            )
            rows.append(
                {
                    "question": question,
                    "reasoning": f"{told} So the answer is {true[0]}.",
                    "answer": true[0],
                    "wrong": pool[: asked["wrong"]],
                    "clips": evidence[:6],
                }
            )
        return rows[: asked["count"]]

    def solve(self, system: str, parts: Sequence[Mapping[str, Any]]) -> str:
        """A letter: drawn by the wording without the video, else by what is shown."""
        asked = json.loads(parts[-1]["text"])
        letters = asked["options"]
        if system == solvers.BLIND:
            drawn = share("blind", asked["question"], *letters.values())
            return list(letters)[int(drawn * len(letters))]
        if len(parts) > 2:
            facts = self._looked_at(parts[:-1])
        else:
            told = json.loads(parts[0]["text"])["captions"]
            facts = read_facts(" ".join(one["caption"] for one in told))
        true = answer_to(asked["question"], facts)
        fitting = [letter for letter, option in letters.items() if option in true]
        return fitting[0] if len(fitting) == 1 else solvers.UNKNOWN


def share(*words: str) -> float:
    """A number from 0 to 1 that the words give."""
    digest = hashlib.sha256("\n".join(words).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def decoded(url: str) -> np.ndarray:
    """The pixels of a `data:` URI, uint8 (H, W, 3)."""
    data = base64.b64decode(url.partition(",")[2])
    with av.open(io.BytesIO(data)) as picture:
        return next(picture.decode(video=0)).to_ndarray(format="rgb24")
