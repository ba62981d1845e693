"""What a run keeps of its rollouts: whole groups, token by token, and an index that is enough."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from support.builders import make_task
from support.rollouts import rollout, trajectory
from support.tiny_runs import SHAPE, tiny_settings, varied, with_run

from train.common.metrics_file import read_metrics
from train.common.rollout_file import (
    FOLDER,
    INDEX,
    LISTED,
    RolloutFileError,
    drop_steps,
    index_line,
    index_lines,
    read_step,
    step_path,
    write_step,
)
from train.loop.launch import train
from train.loop.rollout_log import rollout_record
from train.rollout.record import token_record, with_readings
from train.workers import lanes, rollout_workers

WORDS = ["look", "<tag>", "é", " here", "<|image_pad|>"]


class Tokenizer:
    """Token i is `WORDS[i]`."""

    def __init__(self):
        self.added_tokens_decoder = dict(enumerate(WORDS))

    def __len__(self):
        return len(WORDS)

    def convert_ids_to_tokens(self, ids):
        return [WORDS[i] for i in ids]


def listed(step, member=0):
    values = dict.fromkeys(LISTED, 0) | {"member": member, "task_id": f"t{step}"}
    values |= {"family": "order", "frame_budget": 4 + member}
    return values | {"anything": "else"}


def index_of(folder):
    return list(index_lines((folder / FOLDER / INDEX).read_bytes()))


def test_a_step_comes_back_and_the_index_lists_it(tmp_path):
    size = write_step(tmp_path, 3, [listed(3), listed(3, 1)])
    assert read_step(tmp_path, 3)[1] == listed(3, 1)
    (line,) = index_of(tmp_path)
    assert (line.step, line.size) == (3, size) == (3, step_path(tmp_path, 3).stat().st_size)
    assert (line.rollouts, line.families, line.frame_budgets) == (2, {"order"}, {4, 5})
    assert [row[:3] for row in line.rows()] == [[0, 0, "t3"], [0, 1, "t3"]]


def test_the_head_of_a_line_is_enough_for_a_list_of_steps_and_is_not_believed(tmp_path):
    whole = index_line(3, 9, [listed(3), listed(3, 1)])
    cut = whole.replace(b'"count": 2', b'"count": 5')
    torn = whole.partition(b'"rollouts": ')[0] + b'"rollouts": [[nonsense\n'
    for text, count in ((whole, 2), (cut, 5), (torn, 2)):
        (line,) = index_lines(text)
        assert (line.step, line.rollouts, len(line.rows())) == (3, count, 2 if text == whole else 0)
    for old, new in (
        (b'"version": 2', b'"version": 1'),
        (b'"step": 3', b'"step": -1'),
        (b'"count": 2', b'"count": "x"'),
        (b'"families": ["order"]', b'"families": 7'),
        (b'"frame_budgets": [4, 5]', b'"frame_budgets": [NaN]'),
        (b'{"version"', b'{"deep": ' + b"[" * 100_000 + b', "version"'),
    ):
        assert old in whole and list(index_lines(whole.replace(old, new))) == []


def test_steps_that_are_played_again_are_forgotten(tmp_path):
    for step in range(4):
        write_step(tmp_path, step, [listed(step)])
    with (tmp_path / FOLDER / INDEX).open("ab") as index:
        index.write(b'{"version": 1, "step": 1')  # torn by a crash
    drop_steps(tmp_path, 2)
    assert [line.step for line in index_of(tmp_path)] == [0, 1]
    assert not step_path(tmp_path, 2).exists() and step_path(tmp_path, 1).exists()
    write_step(tmp_path, 2, [listed(2)])
    assert [line.step for line in index_of(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize("damage", [b"", b"no gzip", None])
def test_damaged_files_are_named(tmp_path, damage):
    write_step(tmp_path, 0, [listed(0)])
    path = step_path(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:-9] if damage is None else damage)
    with pytest.raises(RolloutFileError, match="step-000000"):
        read_step(tmp_path, 0)
    with pytest.raises(RolloutFileError, match="keep_rollouts"):
        read_step(tmp_path, 7)


def test_tokens_that_were_not_sampled_join_and_the_others_keep_their_numbers():
    one = replace(
        trajectory(0),
        prompt_ids=np.array([0, 4, 4, 3]),
        branch_ids=np.array([0, 1, 3, 3, 0, 4, 4, 0]),
        loss_mask=np.array([1, 1, 0, 0, 0, 0, 0, 1], bool),
        logprobs=np.array([-0.5, -1.25, 0, 0, 0, 0, 0, -2], np.float32),
        roles=np.array([1, 5, 3, 3, 0, 0, 0, 6], np.int8),
    )
    updated = np.array([-0.5 + math.log(2), -1.25, 9, 9, 9, 9, 9, -3], np.float32)
    told = token_record(one, Tokenizer(), (4,), np.arange(8, dtype=np.float32), updated)
    assert told["prompt"] == "look[2 visual tokens] here"
    assert told["pieces"] == ["look", "<tag>", " here here", "look[2 visual tokens]", "look"]
    assert told["roles"] == [1, 5, 3, 0, 6]
    assert told["logprobs"] == [-0.5, -1.25, None, None, -2.0]
    assert told["advantages"] == [0.0, 1.0, None, None, 7.0]
    assert told["ratios"] == [2.0, 1.0, None, None, round(math.exp(-1), 4)]
    untrained = token_record(one, Tokenizer(), (4,), None, updated)
    assert untrained["advantages"] == [None] * 5 and untrained["ratios"][0] == 2.0
    measured = token_record(one, Tokenizer(), (4,), None, None)
    assert measured["ratios"] == [None] * 5 and measured["logprobs"] == told["logprobs"]


def test_weighted_terms_add_up_to_the_reward():
    played = replace(
        rollout(reward=1.5), terms={"answer": 1.0, "form": 0.5, "total": 1.25}, turns=({},) * 4
    )
    played = replace(played, turns=tuple({"completion": "", "crops": []} for _ in range(4)))
    record = rollout_record(
        played, make_task("/v.mp4"), (2, 5), {"answer": 1.0, "form": 0.5}, 3, []
    )
    assert record["terms"] == {"answer": 1.0, "form": 0.25, "other": 0.25}
    assert (record["group"], record["member"], record["forced"]) == (2, 5, True)
    assert not rollout_record(played, make_task("/v.mp4"), (0, 0), {}, 4, [])["forced"]


def test_readings_belong_to_the_crops_that_ran():
    crops = [{"status": "ok"}, {"status": "outside"}, {"status": "ok"}]
    turns = [{"completion": "", "crops": crops}, {"completion": "", "crops": crops}]
    kinds = [SimpleNamespace(kind=kind) for kind in ("main", "subagent", "subagent", "subagent")]
    told = with_readings(turns, [vars(kind) for kind in kinds])
    found = [[crop["reading"] for crop in turn["crops"]] for turn in told]
    assert found == [[1, None, 2], [3, None, None]]


def test_a_run_keeps_rollouts_and_a_resumed_one_goes_on(tmp_path, clip, other_clip, monkeypatch):
    for module in (rollout_workers, lanes):
        monkeypatch.setattr(module, "play", varied)
    config = tiny_settings(tmp_path, (clip, other_clip), SHAPE)
    config = replace(config, algorithm=replace(config.algorithm, groups=2, group_size=2))
    train(with_run(config, "a", steps=2, keep_rollouts=2, checkpoint_every=1))
    folder = tmp_path / "runs" / "a"
    assert [(line.step, len(line.rows())) for line in index_of(folder)] == [(0, 2), (1, 2)]
    first, second = read_step(folder, 1)
    assert first["question"].startswith(("Which", "What")) and first["task_id"] == second["task_id"]
    assert math.isclose(sum(first["terms"].values()), first["reward"], abs_tol=1e-3)
    main = first["conversations"][0]
    assert "visual tokens]" in main["prompt"] and "<|image_pad|>" not in main["prompt"]
    sampled = [i for i, value in enumerate(main["logprobs"]) if value is not None]
    assert sampled and all(main["ratios"][i] > 0 for i in sampled)
    assert any(abs(main["ratios"][i] - 1) > 1e-4 for i in sampled), "the update moves a token"
    assert read_metrics(folder)[1]["rollouts_kept/bytes"] == step_path(folder, 1).stat().st_size
    again = with_run(config, "a", steps=3, keep_rollouts=2, resume=True)
    train(again)
    assert [line.step for line in index_of(folder)] == [0, 1, 2]
    json.dumps(read_step(folder, 2), allow_nan=False)
    train(with_run(config, "b", steps=1, keep_rollouts=0))
    assert not (tmp_path / "runs" / "b" / FOLDER).exists()
