"""The tokens that an evaluation keeps: which rollouts, how many, and what comes back of a file."""

import gzip
import itertools
import json
import math
from dataclasses import replace

import pytest
from support.evaluations import row
from support.tiny_runs import SHAPE, tiny_settings

from train.common.rollout_file import RolloutFileError
from train.config.evaluation import EvalConfig, Shard
from train.evaluation.agents import evaluated_agent
from train.evaluation.measure import measure
from train.evaluation.scores import EvalReport
from train.evaluation.token_files import (
    every_nth,
    file_name,
    kept_tokens,
    read_tokens,
    token_folders,
    tokens_path,
)
from train.viewer.listing import Source
from train.viewer.runs import Runs


def test_rollouts_are_chosen_at_equal_distances_and_never_more_than_asked():
    for count in range(1, 40):
        for keep in range(1, 12):
            found = every_nth(range(count), keep)
            assert len(found) <= keep and found[0] == 0
            assert len({b - a for a, b in itertools.pairwise(found)}) <= 1
    assert every_nth(range(576), 128)[-1] == 575 and every_nth([], 4) == []


def test_a_file_is_found_by_task_and_budget_in_any_shard(tmp_path):
    one, other = row("../../x\0", frame_budget=4), row("../../x\0", frame_budget=8)
    assert file_name(one) != file_name(other) and "/" not in file_name(one)
    report = tmp_path / "after.json"
    assert tokens_path(report, Shard(2, 4)) == tmp_path / "after.tokens-2of4"
    assert read_tokens(report, one) == [] and kept_tokens(report) == (0, 0)
    for shard, named in ((Shard(2, 4), one), (Shard(1, 1), other)):
        folder = tokens_path(report, shard)
        folder.mkdir()
        path = folder / file_name(named)
        path.write_bytes(gzip.compress(json.dumps([{"kind": shard.count}]).encode()))
    assert [found["kind"] for found in read_tokens(report, one)] == [4]
    assert [found["kind"] for found in read_tokens(report, other)] == [1]
    assert kept_tokens(report)[0] == 2 and len(token_folders(report)) == 2


@pytest.mark.parametrize("content", [b"no gzip", b"", gzip.compress(b"[1]"), gzip.compress(b"{")])
def test_a_damaged_file_is_named(tmp_path, content):
    folder = tmp_path / "after.tokens"
    folder.mkdir()
    (folder / file_name(row("a"))).write_bytes(content)
    with pytest.raises(RolloutFileError, match="tokens"):
        read_tokens(tmp_path / "after.json", row("a"))


def test_an_evaluation_keeps_tokens_and_terms_that_the_viewer_shows(tmp_path, clip, other_clip):
    config = tiny_settings(tmp_path, (clip, other_clip), SHAPE)
    settings = EvalConfig(frame_budgets=(2, 4), budgets_per_task=None, resamples=20, keep_tokens=2)
    config = replace(config, evaluation=replace(settings, split=config.env.split))
    folder = config.run.path
    report = measure(config, evaluated_agent(config), folder / "after.json")
    assert len(report.rows) > 2 and kept_tokens(folder / "after.json")[0] == 2
    again = EvalReport.load(folder / "after.json")
    for one in again.rows:
        assert one.terms and math.isclose(sum(one.terms.values()), one.reward, abs_tol=1e-3)
    (folder / "config.yaml").write_text("")
    runs = Runs([folder])
    shown = [runs.shown(folder.name, Source(evaluation="after"), n) for n in range(len(again.rows))]
    kept = [one for one in shown if one.conversations]
    assert len(kept) == 2
    for one in kept:
        (main, *_) = [talk for talk in one.conversations if talk.kind == "main"]
        sampled = [token for token in main.tokens if token.logprob is not None]
        written = "".join(token.text for token in main.tokens)
        assert one.turns[0].completion in written and len(sampled) >= 2
        assert all(token.ratio is None and token.advantage is None for token in sampled)
    config = replace(config, evaluation=replace(config.evaluation, keep_tokens=0, resume=False))
    measure(config, evaluated_agent(config), folder / "after.json")
    assert kept_tokens(folder / "after.json") == (0, 0), "those of the earlier one are gone"
