"""`paravt view` and `paravt compare --common` from the command line."""

import sys

import pytest
from support.evaluations import report, row
from support.viewed_runs import write_run

from train.cli import main


def refused(capsys, *words):
    assert main(["view", *map(str, words)]) == 2
    return capsys.readouterr().err


def test_only_this_machine_is_served(tmp_path, capsys):
    folder = write_run(tmp_path / "r", "/v.mp4", 1)
    for host in ("0.0.0.0", "192.168.0.7", "::", "example.org"):
        said = refused(capsys, folder, "--host", host, "--port", 1234)
        assert "can be reached from outside" in said and "ssh -L 1234:127.0.0.1:1234" in said


def test_a_place_without_runs_is_named(tmp_path, capsys):
    pytest.importorskip("starlette")
    assert "no run there" in refused(capsys, tmp_path)
    assert "is no folder" in refused(capsys, tmp_path / "absent")


def test_the_extra_is_named_where_it_is_missing(tmp_path, capsys, monkeypatch):
    folder = write_run(tmp_path / "r", "/v.mp4", 1)
    monkeypatch.setitem(sys.modules, "starlette", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "train.viewer.server", raising=False)
    assert "pip install 'paravt[view]'" in refused(capsys, folder)


def test_samples_of_both_are_compared(tmp_path, capsys):
    for name, rows in (("a", [row("x", 0.0), row("y", 1.0)]), ("b", [row("x", 1.0)])):
        report(*rows).save(tmp_path / name / "after.json")
    words = ["compare", str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(words) == 2 and "cannot be paired" in capsys.readouterr().err
    assert main([*words, "--common"]) == 0
    said = capsys.readouterr().out
    assert "1 samples of both, 1 rows of one of them left out" in said and "+100.0" in said
