"""lmms-eval plays our agents, and its scorers read our rows; in its own environment and process.

    lmms-eval --model paravt --tasks videomme \
        --model_args paravt=/opt/paravt/bin/paravt,recipe=chat,output=runs/lmms

lmms-eval wants another PyAV than the environment, so this file imports nothing of ours: the model
writes the questions of a task, runs `paravt answer` of the other installation on them, and hands
the answers back. The other way round, `python -m train.adapters.lmms_eval REPORT --task videomme
--output FILE` scores a report's rows as lmms-eval does (`paravt compare --lmms-eval`). Tests, with
the real package and its seven tasks: `make test-adapters`.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

try:
    from lmms_eval.api.model import lmms
    from lmms_eval.models.registry_v2 import ModelManifest
    from lmms_eval.tasks import TaskManager, get_task_dict
except ImportError as error:
    raise ImportError(
        f"lmms-eval is not there ({error}): pip install lmms-eval==0.7.3 in an environment of its "
        "own, and pip install --no-deps paravt beside it"
    ) from error

NO_ANSWER = "no answer was given"
"""What is handed over for a rollout without an answer: MMVU's rule takes an empty text as right."""
ASKED = ("question", "caption")
"""Fields of a document that hold what is asked."""
RIGHT = ("answer", "correct_choice", "timestamp")
"""Fields that hold the right answer."""
PAIRS = (("pred_answer", "answer"), ("parsed_pred", "answer"))
"""Fields that are equal in a right row, of tasks whose results have no score of their own."""
LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables of the launcher that started lmms-eval, which must not reach the other process."""

MANIFEST = ModelManifest(model_id="paravt", chat_class_path="train.adapters.lmms_eval.ParaVT")
"""The entry point `lmms_eval.models`."""


class ParaVT(lmms):
    """An agent of ours as a model of lmms-eval.

    Args:
        paravt: The command of the other installation, `/path/bin/paravt`.
        recipe: A recipe's name or file: agent, checkpoint, environment, K, temperature.
        output: Folder for questions, answers and played rows; a stopped run resumes there.
        batch_size, max_batch_size, device: Handed over by lmms-eval and not looked at: the recipe
            says them.

    Raises:
        ValueError: An argument is missing, or lmms-eval runs as several processes.
    """

    is_simple = False

    def __init__(
        self,
        paravt: str = "",
        recipe: str = "chat",
        output: str = "",
        batch_size: Any = None,
        max_batch_size: Any = None,
        device: Any = None,
    ) -> None:
        super().__init__()
        for name, given in (("paravt", paravt), ("output", output)):
            if not given:
                raise ValueError(
                    f"--model_args has no {name}: give paravt=/path/bin/paravt (the installation "
                    "that plays) and output=FOLDER, and recipe=NAME_OR_FILE"
                )
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError("start lmms-eval as one process: the recipe spreads the work")
        self._command, self._recipe, self._output = paravt, recipe, Path(output)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Ask all questions in one run; the tasks' generation arguments are not looked at.

        Raises:
            ValueError: A question is not about one video.
            RuntimeError: The command failed; what it said is on the screen.
        """
        questions: dict[str, dict[str, str]] = {}
        asked = []
        for request in requests:
            _, messages_of, _, doc_id, task, split = request.args
            name = f"{task}/{split}/{doc_id}"
            video, text = one_video(messages_of(self.task_dict[task][split][doc_id]), name)
            questions[name] = {"id": name, "video": video, "question": text}
            asked.append(name)
        said = self._answers(list(questions.values()))
        return [said[name] or NO_ANSWER for name in asked]

    def loglikelihood(self, requests: Any) -> Any:
        """Refused: an agent's answer is written, after it has looked."""
        raise NotImplementedError("an agent writes its answer: take a task of generate_until")

    def generate_until_multi_round(self, requests: Any) -> Any:
        """Refused: the rounds of an episode are the agent's own."""
        raise NotImplementedError("the agent's turns are its own: take a task of generate_until")

    def _answers(self, questions: Sequence[Mapping[str, str]]) -> dict[str, str]:
        """By id; files of the same questions have the same names, so a stopped run resumes."""
        if not questions:
            return {}
        whole = "".join(f"{json.dumps(one)}\n" for one in questions)
        tasks = "+".join(dict.fromkeys(one["id"].partition("/")[0] for one in questions))
        name = f"{tasks[:80]}-{blake2b(whole.encode(), digest_size=4).hexdigest()}"
        self._output.mkdir(parents=True, exist_ok=True)
        asked, answered = (self._output / f"{name}.{part}.jsonl" for part in ("asked", "answers"))
        asked.write_text(whole, encoding="utf-8")
        answered.unlink(missing_ok=True)
        words = ["answer", self._recipe, "--questions", str(asked), "--output", str(answered)]
        ours = {key: value for key, value in os.environ.items() if key not in LAUNCHERS}
        try:
            status = subprocess.run([self._command, *words], check=False, env=ours).returncode
        except OSError as error:
            raise ValueError(f"paravt={self._command} cannot be run: {error}") from error
        if not answered.is_file():
            raise RuntimeError(f"`paravt {' '.join(words)}` ended with {status}: it says why above")
        lines = [json.loads(line) for line in answered.read_text(encoding="utf-8").splitlines()]
        lost = [line for line in lines if line["error"]]
        if lost:
            print(f"{len(lost)} of {len(lines)} questions were not asked, such as {lost[0]}")
        return {line["id"]: line["answer"] for line in lines}


def one_video(messages: Sequence[Mapping[str, Any]], name: str) -> tuple[str, str]:
    """The video and the text of a question.

    Raises:
        ValueError: It has another number of videos, or other media.

    >>> one_video([{"role": "user", "content": [{"type": "video", "url": "v.mp4"},
    ...     {"type": "text", "text": "Who?"}]}], "t")[1]
    'Who?'
    """
    media: list[tuple[str, Any]] = []
    texts = []
    for message in messages:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                texts.append(str(part["text"]))
            else:
                media.append((part["type"], part.get("url")))
    if len(media) != 1 or media[0][0] != "video" or not isinstance(media[0][1], str):
        kinds = ", ".join(kind for kind, _ in media) or "none"
        raise ValueError(f"{name}: the agent takes one video by its path, not: {kinds}")
    return os.path.abspath(media[0][1]), "\n".join(texts).strip()


def score(rows: Sequence[Mapping[str, Any]], task: Any, metric: str = "") -> list[dict[str, Any]]:
    """Rows of a report with the scores of a task of lmms-eval.

    A row with an error or without an answer has score 0, whatever the task's rule would say.

    Args:
        rows: As `after.json` holds them.
        task: Of lmms-eval, with its documents.
        metric: One of the task's; "" where it has one alone.

    Raises:
        ValueError: A row belongs to no document or to several, or the metric is none of the task's.
    """
    names = list(task.aggregation())
    if metric not in names and (metric or len(names) > 1):
        raise ValueError(f"--metric {metric!r}: the task has {', '.join(names)}")
    metric = metric or names[0]
    documents = list(task.eval_docs_no_media)
    scored = []
    for row in rows:
        doc = document_of(row, documents)
        answered = row["answer"] and not row["error"]
        value = task.process_results(doc, [row["answer"]])[metric] if answered else 0.0
        scored.append({**row, "score": number(value, task.aggregation()[metric])})
    return scored


def document_of(row: Mapping[str, Any], documents: Iterable[Mapping[str, Any]]) -> Any:
    """The document that a row answers: of the same video and question.

    Where several are, options and right answer tell them apart.

    Raises:
        ValueError: There is none, or there are several whose right answers differ.
    """
    question, _, options = row["question"].partition("\nA. ")
    asked, stem = _folded(question), PurePath(row["video"]).stem
    offered = [_folded(option) for option in re.split(r"\n[B-J]\. ", options)]
    same = [doc for doc in documents if stem in {PurePath(text).stem for text in _texts(doc)}]
    found = [doc for doc in same if asked in _asked(doc)]
    found = found or [doc for doc in same if any(a in asked or asked in a for a in _asked(doc))]
    for alike in (
        lambda doc: all(option in _folded(" ".join(_texts(doc))) for option in offered),
        lambda doc: row["gold"] == _span(doc),
    ):
        found = [doc for doc in found if alike(doc)] or found
    if len({json.dumps([doc.get(name) for name in RIGHT]) for doc in found}) != 1:
        raise ValueError(
            f"row {row['task_id']!r} ({stem}: {question!r}) belongs to {len(found)} of the task's "
            "documents: is it of this task and of this split?"
        )
    return found[0]


def number(value: Any, aggregate: Any = None) -> float:
    """What a task's result for one row is worth, 0 to 1.

    Tasks keep it as a number, under `score` or `correct`, or as what was read beside the right
    answer. What has none of these is worth what the task's own aggregation, in percent, gives for
    the row alone.

    Raises:
        ValueError: No number between 0 and 1 comes out.

    >>> number(True), number({"pred_answer": "B", "answer": "C"}), number({"score": 0.5})
    (1.0, 0.0, 0.5)
    """
    if isinstance(value, Mapping):
        pairs = [(one, two) for one, two in PAIRS if one in value and two in value]
        keys = [name for name in ("score", "correct") if name in value]
        if keys:
            value = value[keys[0]]
        elif pairs:
            value = value[pairs[0][0]] == value[pairs[0][1]]
        elif aggregate is not None:
            more = {"args": None} if "args" in inspect.signature(aggregate).parameters else {}
            value = aggregate([value], **more) / 100
    try:
        read = float(value)
    except (TypeError, ValueError):
        read = math.nan
    if not 0 <= read <= 1:
        raise ValueError(f"the task's result {value!r} is no score between 0 and 1")
    return read


def _texts(doc: Any) -> Iterable[str]:
    """All texts in a document."""
    if isinstance(doc, Mapping):
        doc = list(doc.values())
    if isinstance(doc, str):
        yield doc
    elif isinstance(doc, list | tuple):
        for one in doc:
            yield from _texts(one)


def _asked(doc: Mapping[str, Any]) -> list[str]:
    """What is asked."""
    return [_folded(str(doc[name])) for name in ASKED if doc.get(name)]


def _span(doc: Mapping[str, Any]) -> str:
    """The right span as a row has it; "" where there is none."""
    span = doc.get("timestamp")
    return f"{float(span[0])}-{float(span[1])}" if isinstance(span, list | tuple) else ""


def _folded(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")


def main(words: Sequence[str] | None = None) -> int:
    """Score the rows of a report."""
    parser = argparse.ArgumentParser(prog="python -m train.adapters.lmms_eval")
    parser.add_argument("report", type=Path, help="after.json of an evaluation")
    parser.add_argument("--task", required=True, help="of lmms-eval, such as videomme")
    parser.add_argument("--metric", default="", help="where the task has several")
    parser.add_argument("--include-path", help="folder with task files of your own")
    parser.add_argument("--output", type=Path, required=True, help="the report with their scores")
    args = parser.parse_args(words)
    report = json.loads(args.report.read_text(encoding="utf-8"))
    manager = TaskManager(include_path=args.include_path)
    try:
        task = get_task_dict([args.task], manager, "chat")[args.task]
        rows = score(report["rows"], task, args.metric)
    except (KeyError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    said = " ".join(filter(None, (f"lmms-eval {version('lmms-eval')}", args.task, args.metric)))
    settings = {**report["settings"], "scorer": said}
    whole = {**report, "rows": rows, "settings": settings, "summary": {}}
    args.output.write_text(json.dumps(whole, indent=1, allow_nan=False), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
