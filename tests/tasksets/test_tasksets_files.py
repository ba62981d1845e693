"""Security of data sets: paths stay under their root, manifests are data of a bounded size."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.builders import SIZE, make_task, write_manifest
from support.published_rows import touch, write_rows

import paravt_env.tasksets.rows as rows
from paravt_env.env import LongVideoEnv
from paravt_env.task import TaskError
from paravt_env.tasksets import load_tasks
from paravt_env.tasksets.files import resolve_file
from paravt_env.tasksets.jsonl import JsonlTasks
from paravt_env.tasksets.rows import Problem, read_rows
from paravt_env.vector import LongVideoVectorEnv
from paravt_env.video.types import VideoError
from paravt_env.wrappers import CompletionAction

ROW = {"id": "a", "video": "v.mp4", "question": "?", "kind": "open", "answer": "x"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a file, beside a secret."""
    touch(tmp_path, "secret.mp4", "root/v.mp4", "root/sub/w.mp4")
    return (tmp_path / "root").resolve()


# Paths


@pytest.mark.parametrize(
    "name", ["v.mp4", "sub/w.mp4", "./sub/../v.mp4", "absent.mp4", "absent/x.mp4", "a: b.mp4"]
)
def test_files_of_the_root_and_files_to_come_resolve(name: str, root: Path) -> None:
    assert resolve_file(name, root) == os.path.normpath(root / name)
    assert resolve_file(str(root / name), root) == os.path.normpath(root / name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../secret.mp4", "is not inside"),
        ("sub/../../secret.mp4", "is not inside"),
        ("/etc/passwd", "is not inside"),
        ("", "is not a path"),
        ("v.mp4\0.txt", "is not a path"),
        (".", "is not inside"),
        ("sub", "a folder, not a file"),
        ("x" * 5000, "cannot be resolved"),
        ("http://example.org/v.mp4", "is a URL"),
        ("https://example.org/v.mp4", "is a URL"),
        ("FILE:///etc/passwd", "is a URL"),
        ("file:v.mp4", "is a URL"),
        ("s3://bucket/v.mp4", "is a URL"),
        ("concat:v.mp4|/etc/passwd", "is a URL"),
        ("data:video/mp4;base64,AAAA", "is a URL"),
        ("pipe:0", "is a URL"),
        ("/dev/zero", "is not inside"),
        ("/proc/self/mem", "is not inside"),
    ],
)
def test_what_leaves_the_root_is_refused(name: str, why: str, root: Path) -> None:
    with pytest.raises(ValueError, match=why):
        resolve_file(name, root)


def test_links_out_of_the_root_are_refused_and_links_inside_are_not(root: Path) -> None:
    (root / "file_out.mp4").symlink_to(root.parent / "secret.mp4")
    (root / "folder_out").symlink_to(root.parent)
    (root / "chain.mp4").symlink_to(root / "file_out.mp4")
    (root / "dangling.mp4").symlink_to("/no/such/file")
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    (root / "inside.mp4").symlink_to(root / "sub" / "w.mp4")
    for name in ("file_out.mp4", "folder_out/secret.mp4", "chain.mp4", "dangling.mp4"):
        with pytest.raises(ValueError, match="a link leads out of it"):
            resolve_file(name, root)
    with pytest.raises(ValueError, match="cannot be resolved"):
        resolve_file("loop.mp4", root)
    assert resolve_file("inside.mp4", root) == str(root / "sub" / "w.mp4")


def test_devices_fifos_and_sockets_are_refused(root: Path) -> None:
    os.mkfifo(root / "fifo.mp4")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "s.mp4"))
        for name, what in (("fifo.mp4", "a FIFO"), ("s.mp4", "a socket")):
            with pytest.raises(ValueError, match=f"{what}, not a file"):
                resolve_file(name, root)
    with pytest.raises(ValueError, match="a device, not a file"):
        resolve_file("null", Path("/dev").resolve())


@pytest.mark.parametrize("bad", ["../secret.mp4", "http://x/v.mp4", "fifo.mp4"])
def test_task_sets_refuse_such_paths_when_they_are_loaded(bad: str, root: Path) -> None:
    os.mkfifo(root / "fifo.mp4")
    path = write_rows(root / "t.jsonl", {**ROW, "video": bad})
    with pytest.raises(TaskError, match="line 1: field 'video': "):
        load_tasks(str(path))


def test_a_file_that_becomes_a_fifo_or_a_device_after_loading_is_not_opened(root: Path) -> None:
    env = LongVideoEnv(str(write_rows(root / "t.jsonl", ROW)), frame_size=SIZE)
    (root / "v.mp4").unlink()
    os.mkfifo(root / "v.mp4")
    with pytest.raises(VideoError, match="is not a file"):
        env.reset(seed=0)
    (root / "v.mp4").unlink()
    for target in ("/dev/zero", root.parent / "secret.mp4", root / "sub" / "w.mp4"):
        (root / "v.mp4").symlink_to(target)
        with pytest.raises(VideoError, match="has become a link since"):
            env.reset(seed=0)
        (root / "v.mp4").unlink()
    env.close()


def test_a_row_whose_video_became_a_link_fails_alone(clip: str, root: Path) -> None:
    for name in ("v.mp4", "sub/w.mp4"):
        shutil.copy(clip, root / name)
    path = write_rows(root / "t.jsonl", ROW, {**ROW, "id": "b", "video": "sub/w.mp4"})
    env = LongVideoVectorEnv(3, str(path), frame_size=SIZE, frame_budget=2)
    (root / "v.mp4").unlink()
    (root / "v.mp4").symlink_to(clip)
    infos = env.reset(seed=0, options={"task_id": ["b", "a", "b"]})[1]
    assert infos["_error"].tolist() == [False, True, False]
    assert "has become a link" in infos["error"][1]
    assert infos["frames_seen"].tolist() == [2, 0, 2]
    env.close()


@pytest.mark.parametrize("path", ["{other}", "../other.mp4", "http://x/clip.mp4", "/dev/zero"])
def test_a_path_that_a_model_writes_is_ignored_and_never_opened(
    path: str, clip: str, other_clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_manifest(tmp_path / "tasks.jsonl", [make_task(clip)])
    tasks = JsonlTasks(manifest, root=Path(clip).parent)
    env = LongVideoEnv(tasks, frame_size=SIZE, frame_budget=2)
    env.reset(seed=0)
    opened: list[str] = []
    submit = env.simulation.video.store.submit
    monkeypatch.setattr(
        env.simulation.video.store,
        "submit",
        lambda path, *args, **kwargs: opened.append(path) or submit(path, *args, **kwargs),
    )
    written = path.format(other=other_clip)
    arguments = {"start_time": 1, "end_time": 2}
    calls = "".join(
        f"<tool_call>{json.dumps({'name': 'crop_video', 'arguments': one})}</tool_call>"
        for one in ({**arguments, "video_path": written}, {**arguments, "video_path": clip})
    )
    info = CompletionAction(env).step(f"<think>\nlook\n</think>{calls}")[4]
    assert [crop["status"] for crop in info["crops"]] == ["ok", "ok"]
    assert set(opened) == {clip}
    env.close()


# Manifests are data


class Bomb:
    """Unpickling it leaves a mark."""

    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["BOMB"],)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".pkl"])
def test_a_pickle_is_no_manifest(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "gone off"))
    path = tmp_path / f"tasks{suffix}"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(TaskError, match="tasks"):
        load_tasks("mlvu", root=tmp_path, annotations=path)
    assert not (tmp_path / "gone off").exists()


def test_the_environment_imports_nothing_that_runs_data() -> None:
    forbidden = {"pickle", "cPickle", "dill", "marshal", "shelve", "joblib", "cloudpickle"}
    package = Path(rows.__file__).parents[1]
    guest = package / "sandbox" / "guest.py"  # it runs code, and nowhere but in the sandbox
    assert guest.exists()
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {alias.name.split(".")[0] for node in ast.walk(tree)
                 if isinstance(node, ast.Import) for alias in node.names}  # fmt: skip
        names |= {(node.module or "").split(".")[0] for node in ast.walk(tree)
                  if isinstance(node, ast.ImportFrom)}  # fmt: skip
        called = {node.func.id for node in ast.walk(tree)
                  if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
        pickled = [word.value.value for node in ast.walk(tree) if isinstance(node, ast.Call)
                   for word in node.keywords if word.arg == "allow_pickle"
                   and isinstance(word.value, ast.Constant)]  # fmt: skip
        assert not names & forbidden, path
        if path != guest:
            assert not called & {"eval", "exec"}, path
        assert not any(pickled), path


def problems(found: Iterator[Any]) -> list[tuple[int, str]]:
    return [(p.place.number, p.message) for p in found if isinstance(p, Problem)]


def test_a_line_has_a_largest_size_and_its_neighbours_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 200)
    path = tmp_path / "t.jsonl"
    lines = [json.dumps(ROW), json.dumps({**ROW, "answer": "x" * 1000}), json.dumps(ROW)]
    path.write_text("\n".join(lines))
    found = list(read_rows(path))
    assert problems(iter(found)) == [(2, "longer than 200 bytes")]
    assert [row.place.number for row in found if not isinstance(row, Problem)] == [1, 3]
    exact = json.dumps({**ROW, "answer": ""})
    fill = json.dumps({**ROW, "answer": "x" * (199 - len(exact))})
    path.write_text(f"{fill}\n{fill}x\n")  # 200 bytes with the line's end, and 201
    assert problems(read_rows(path)) == [(2, "longer than 200 bytes")]


def test_a_json_file_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "t.json", ROW, ROW)
    assert problems(read_rows(path)) == []
    monkeypatch.setattr(rows, "MAX_JSON_BYTES", 100)
    assert problems(read_rows(path)) == [(0, "larger than 100 bytes: write it as JSONL")]


@pytest.mark.parametrize(
    ("suffix", "content", "number", "message"),
    [
        (".jsonl", b"\xff\xfe", 1, "not JSON: 'utf-8' codec"),
        (".jsonl", b'{"a": 1}\n' + b"[" * 100_000, 2, "not JSON: "),
        (".jsonl", b'{"a": ' + b"9" * 10_000 + b"}", 1, "not JSON: "),
        (".jsonl", b"3", 1, "a JSON object expected, not int"),
        (".json", b"[" * 100_000, 0, "not JSON: "),
        (".json", b'{"a": 1}', 0, "a list of objects expected, not dict"),
        (".json", b"[{}, 3]", 2, "a JSON object expected, not int"),
        (".parquet", b"PAR1 no PAR1", 0, "not Parquet: "),
    ],
)
def test_bad_files_are_problems_in_their_place(
    suffix: str, content: bytes, number: int, message: str, tmp_path: Path
) -> None:
    path = tmp_path / f"t{suffix}"
    path.write_bytes(content)
    ((found, text),) = problems(read_rows(path))
    assert found == number and text.startswith(message)


def test_a_byte_order_mark_and_blank_lines_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r\n\r\n  \n")
    (row,) = read_rows(path)
    assert row.data == ROW


def test_a_manifest_is_a_regular_file_of_a_known_kind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.jsonl")
    for name, message in (("t.jsonl", "no such file"), ("t.txt", "one of .parquet, .jsonl, .json")):
        with pytest.raises(TaskError, match=message):
            list(read_rows(tmp_path / name))
