"""The real OpenEnv serves episodes over sockets; skipped where it is not installed."""

import asyncio
import base64
import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.builders import SIZE, ListTasks, act, make_task, same, write_manifest

from agents.base import Decision
from paravt_env.common.images import decode_picture
from paravt_env.env import LongVideoEnv
from paravt_env.episode.simulation import Simulation
from paravt_env.protocol import action_from_completion, render_completion
from paravt_env.rewards.terms.base import ScorerError
from paravt_env.settings import make_settings
from paravt_env.spaces import batch_actions
from paravt_env.vector import LongVideoVectorEnv

pytest.importorskip("openenv")
from openenv import GenericEnvClient
from support.openenv_servers import LIMIT, SMALL, Running

from train.adapters import openenv
from train.adapters.farm import RemoteVectorEnv
from train.adapters.openenv import CropAction, CropEnvironment, Served
from train.config.env import EnvConfig
from train.rollout.play import play
from train.rollout.starts import Start

ROOT = Path(__file__).parents[2]


@pytest.fixture
def serving(tasks):
    running = []

    def start(*args, **settings):
        running.append(Running(*(args or (tasks,)), **settings))
        return running[-1]

    yield start
    for one in running:
        one.stop()


@contextlib.contextmanager
def client_of(server):
    with GenericEnvClient(base_url=server.address).sync() as client:
        yield client


def pictures(observation):
    return [decode_picture(base64.b64decode(one), SIZE) for one in observation["frames"]]


START = {"seed": 5, "task_id": "colour", "frame_budget": 4}
LOOK = render_completion("look at two places", [(10, 14), (9, 3)])
SAY = render_completion("it was the blue one", answer="B")


def test_an_episode_is_the_environments_own(serving, tasks):
    server = serving()
    env = LongVideoEnv(tasks, **SMALL)
    seen, _ = env.reset(seed=5, options={"task_id": "colour", "frame_budget": 4})
    with client_of(server) as client:
        result = client.reset(**START, episode_id="mine")
        told = result.observation
        assert told["episode_id"] == "mine" and told["question"] == seen["question"]
        assert same(np.stack(pictures(told)), seen["frames"][seen["window"] == 0])
        assert told["timestamps"] == seen["timestamps"][:4].tolist()
        for text in (LOOK, SAY):
            result = client.step({"episode_id": "mine", "completion": text})
            seen, reward, done, _, info = env.step(action_from_completion(text, 3))
            assert (result.reward, result.done) == (reward, done)
            told = result.observation
            assert told["window"] == seen["window"][seen["window"] >= 0].tolist()
            assert told["feedback"] == seen["feedback"]
            statuses = [crop["status"] for crop in told["metadata"]["crops"]]
            assert statuses == [str(crop["status"]) for crop in info["crops"]]
        assert told["metadata"]["reward_terms"] == info["reward_terms"]
        assert client.state()["done"] is True
    env.close()


def test_sessions_are_apart_and_the_same_seed_is_the_same_start(serving):
    server = serving()
    with client_of(server) as one, client_of(server) as other:
        first, second = one.reset(seed=3), other.reset(seed=3)
        same_start = ("frames", "timestamps", "question", "metadata")
        assert all(first.observation[k] == second.observation[k] for k in same_start)
        one.step({"episode_id": first.observation["episode_id"], "crops": [[1, 2]]})
        assert (one.state()["step_count"], other.state()["step_count"]) == (1, 0)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ({"episode_id": "x", "answer": "B"}, "plays no episode 'x'"),
        ({"answer": "B"}, "VALIDATION_ERROR"),
        ({"episode_id": "mine", "crops": [[1, 2]] * 4}, "4 crops"),
        ({"episode_id": "mine", "crops": [["a", 2]]}, "VALIDATION_ERROR"),
        ({"episode_id": "mine", "crops": [[1, 2, 3]]}, "VALIDATION_ERROR"),
        ({"episode_id": "mine", "completion": LOOK, "answer": "B"}, "leave both out"),
        ({"episode_id": "mine", "completion": 7}, "VALIDATION_ERROR"),
        ({"episode_id": "mine", "window": [1, 2]}, "VALIDATION_ERROR"),
    ],
)
def test_an_action_that_cannot_be_read_is_an_error_of_its_session(serving, action, said):
    server = serving()
    with client_of(server) as client, client_of(server) as neighbour:
        client.reset(**START, episode_id="mine")
        neighbour.reset(**START, episode_id="theirs")
        with pytest.raises(RuntimeError, match=said):
            client.step(action)
        assert client.state()["step_count"] == 0
        for one, name in ((client, "mine"), (neighbour, "theirs")):
            assert one.step({"episode_id": name, "answer": "B"}).done


def test_windows_that_are_no_numbers_come_back_with_their_status(serving):
    server = serving()
    with client_of(server) as client:
        client.reset(**START, episode_id="mine")
        crops = [[None, 2], [float("nan"), float("inf")], [1, 2]]
        result = client.step({"episode_id": "mine", "crops": crops})
        told = result.observation["metadata"]["crops"]
        assert [crop["status"] for crop in told] == ["not_finite", "not_finite", "ok"]
        assert told[0]["window"] == [None, 2.0]


@pytest.mark.parametrize(
    ("reset", "said"),
    [
        ({"task_idd": "colour"}, "did you mean 'task_id'"),
        ({"task_id": "nothing"}, "no task 'nothing'"),
        ({"frame_budget": 10**6}, "frame_budget must be"),
        ({"split": "tset"}, "split 'tset'"),
        ({"index": 4}, "has 4 tasks"),
        ({"index": 1, "task_id": "colour"}, "not both"),
        ({"seed": -1}, "seed|Seed"),
    ],
)
def test_a_reset_that_cannot_be_says_why(serving, reset, said):
    server = serving()
    with client_of(server) as client:
        client.reset(**START, episode_id="mine")
        with pytest.raises(RuntimeError, match=said):
            client.reset(**reset)
        with pytest.raises(RuntimeError, match="plays no episode"):
            client.step({"episode_id": "mine", "answer": "B"})
        assert client.reset(index=1).observation["metadata"]["task_id"] == "time"


def test_after_a_lost_connection_a_step_is_refused_and_not_played_elsewhere(serving):
    server = serving()
    with client_of(server) as client:
        client.reset(**START, episode_id="mine")
        client.disconnect()
        with pytest.raises(RuntimeError, match="a connection was lost"):
            client.step({"episode_id": "mine", "answer": "B"})


def test_a_session_that_disappears_frees_its_place(serving):
    server = serving(sessions=1)
    with client_of(server) as client:
        client.reset(**START)
        with pytest.raises(RuntimeError, match="CAPACITY_REACHED"), client_of(server) as more:
            more.reset(**START)

    async def drop():
        client = GenericEnvClient(base_url=server.address)
        await client.connect()
        await client.reset(**START)
        client._ws.transport.abort()  # as a machine that goes away

    for _ in range(3):
        deadline = time.monotonic() + 10
        while True:
            try:
                asyncio.run(drop())
                break
            except RuntimeError:  # the place is freed when the server sees the connection gone
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_messages_have_a_size(serving):
    server = serving()
    with client_of(server) as client:
        client.reset(**START, episode_id="mine")
        with pytest.raises(Exception, match=r"1009|too big|close"):
            client.step({"episode_id": "mine", "completion": "x" * (LIMIT + 1)})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.address}/step", b"x" * (LIMIT + 1), timeout=10)
    assert refused.value.code == 413
    with client_of(server) as client:
        assert client.reset(**START).observation["question"]


def test_an_observation_that_is_too_large_ends_its_episode(tasks, serving):
    server = serving()
    served = Served({"train": server.simulation}, "png", 300)
    environment = CropEnvironment(served)
    with pytest.raises(ValueError, match="serve jpeg"):
        environment.reset(**START, episode_id="mine")
    with pytest.raises(ValueError, match="plays no episode"):
        environment.step(CropAction(episode_id="mine", answer="B"))


def test_tasks_are_listed_without_their_answers(serving):
    server = serving()

    def get(path, data=None):
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(server.address + path, body)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.load(reply)

    assert get("/health")["status"] == "healthy"
    assert get("/metadata")["name"] == "ParaVT-LongVideo-v0"
    assert [split["name"] for split in get("/paravt/splits")] == ["train"]
    assert get("/paravt/num_tasks", {"split": "train"}) == {"num_tasks": 4}
    task = get("/paravt/task", {"split": "train", "index": 0})
    assert "Which colour?" in json.dumps(task) and "answer" not in json.dumps(task)


def test_a_jpeg_is_smaller_and_close(serving):
    server = serving(picture="jpeg")
    with client_of(server) as client:
        result = client.reset(**START)
        assert result.observation["picture"] == "jpeg"
        assert all(one.startswith("/9j/") for one in result.observation["frames"])
        assert len(pictures(result.observation)) == 4


def test_what_cannot_be_sent_is_refused_before_serving(tasks):
    simulation = Simulation(make_settings({**SMALL, "tasks": tasks, "frame_size": (33, 64)}))
    with pytest.raises(ValueError, match="even sides"):
        Served({"train": simulation}, "jpeg")
    with pytest.raises(ValueError, match="picture 'gif'"):
        Served({"train": simulation}, "gif")
    with pytest.raises(ValueError, match="limit of OpenEnv's client"):
        Served({"train": simulation}, "png", 200 * 2**20)
    simulation.close()


def test_a_video_that_cannot_be_read_is_over_at_once_and_keeps_its_path(clip, serving):
    server = serving(ListTasks([make_task("/nowhere/secret.mp4", "broken"), make_task(clip)]))
    with client_of(server) as client:
        result = client.reset(task_id="broken")
        assert result.done and result.observation["metadata"]["stop_reason"] == "video_error"
        assert "secret" not in json.dumps(result.observation)


# the decode farm


class Turns:
    """Writes, row by row, what it was given; other rows idle."""

    def __init__(self, texts):
        self.texts = texts

    def act(self, turn, env):
        actions = [
            action_from_completion(texts[turn], 3) if turn < len(texts) else None
            for texts in self.texts
        ]
        return batch_actions(actions, 3)


TEXTS = [[LOOK, SAY], [SAY], [LOOK, LOOK, LOOK, LOOK], ["", ""], [LOOK, "x", SAY]]


def played(env):
    """Everything that an environment gives for five rows."""
    ids = ["colour", "time", "shape", None, "name"]
    given = [env.reset(seed=[1, 2, 3, 4, 5], options={"task_id": ids})]
    for turn in range(5):
        given.append(env.step(Turns(TEXTS).act(turn, env)))
    return given


def test_a_farm_refuses_code(tasks):
    with pytest.raises(ValueError, match="a decode farm plays crops; code runs where the episode"):
        RemoteVectorEnv(1, ["http://127.0.0.1:9"], tasks=tasks, tool="code", max_crops=1)


def test_a_farm_of_two_servers_is_the_local_environment_bit_by_bit(serving, tasks):
    servers = [serving(), serving()]
    local = LongVideoVectorEnv(5, tasks, **SMALL)
    farm = RemoteVectorEnv(5, [server.address for server in servers], tasks=tasks, **SMALL)
    assert same(played(farm), played(local))
    assert [len(farm.simulation.sessions)] == [5]
    counts = [sum(s.address == one.address for s in farm.simulation.sessions) for one in servers]
    assert sorted(counts) == [2, 3]
    assert same(played(farm), played(local))  # in the same sessions
    assert len(farm.simulation.sessions) == 5
    assert [farm.transcript_of(row).turns for row in range(5)] != []
    assert farm.simulation.video.store.decoded == 0
    farm.close()
    local.close()
    with pytest.raises(RuntimeError, match="closed"):
        farm.reset()


def test_crops_of_an_agent_without_text_and_a_reset_half_way(serving, tasks):
    server = serving()
    settings = {**SMALL, "tasks": tasks}
    local = LongVideoVectorEnv(2, **settings)
    farm = RemoteVectorEnv(2, [server.address], **settings)
    nan = float("nan")
    for env in (local, farm):
        env.reset(seed=[1, 2])
    turn = batch_actions([act((1, 3), (nan, 2)), act((4, 5), (2, 1), (6, 7))], 3)
    assert same(farm.step(turn), local.step(turn))
    mask = {"reset_mask": np.array([True, False])}
    assert same(farm.reset(seed=[7, None], options=mask), local.reset(seed=[7, None], options=mask))
    done = batch_actions([act(answer="B"), act(answer="A")], 3)
    assert same(farm.step(done), local.step(done))
    assert len(farm.simulation.sessions) == 2
    farm.close()
    local.close()


def test_a_lost_server_ends_its_rows_only_and_the_next_reset_goes_elsewhere(serving, tasks):
    servers = [serving(), serving()]
    farm = RemoteVectorEnv(4, [server.address for server in servers], tasks=tasks, **SMALL)
    farm.reset(seed=[1] * 4)
    mine = [session.address for session in farm.simulation.sessions]
    servers[0].stop()
    *_, infos = farm.step(batch_actions([act((1, 2))] * 4, 3))
    lost = [address == servers[0].address for address in mine]
    assert farm.idle.tolist() == lost and sum(lost) == 2
    assert [infos["stop_reason"][row] == "server_error" for row in range(4)] == lost
    assert servers[0].address in infos["error"][lost.index(True)]
    *_, terminated, truncated, _ = farm.step(batch_actions([act(answer="B")] * 4, 3))
    assert terminated.tolist() == [not one for one in lost] and not truncated.any()
    farm.reset(seed=[1] * 4)
    assert not farm.idle.any()
    assert {session.address for session in farm.simulation.sessions} == {servers[1].address}
    servers[1].stop()
    _, infos = farm.reset(seed=[1] * 4)
    assert farm.idle.all() and set(infos["stop_reason"]) == {"server_error"}
    farm.close()


def test_a_farm_that_is_full_or_plays_by_other_rules_says_so(serving, tasks):
    small, other = serving(sessions=1), serving(max_turns=1)
    farm = RemoteVectorEnv(2, [small.address], tasks=tasks, **SMALL)
    _, infos = farm.reset(seed=[1, 2])
    assert farm.idle.sum() == 1 and any("CAPACITY" in str(e) for e in infos["error"])
    farm.close()
    farm = RemoteVectorEnv(1, [other.address], tasks=tasks, **SMALL)
    _, infos = farm.reset(seed=1)
    assert "max_turns: 1 there, 3 here" in infos["error"][0]
    farm.close()


def test_errors_of_video_and_judge_arrive_as_they_are(clip, serving):
    def scorer(task, answer):
        raise ScorerError("no verdict")

    tasks = ListTasks([make_task(clip), make_task("/nowhere.mp4", "broken")])
    server = serving(tasks, scorer=scorer)
    settings = {**SMALL, "tasks": tasks, "scorer": scorer}
    local = LongVideoVectorEnv(2, **settings)
    farm = RemoteVectorEnv(2, [server.address], **settings)
    options = {"task_id": ["colour", "broken"]}
    assert same(farm.reset(seed=[1, 2], options=options), local.reset(seed=[1, 2], options=options))
    said = batch_actions([act(answer="B"), None], 3)
    assert same(farm.step(said), local.step(said))
    farm.close()
    local.close()


def test_a_reply_that_is_wrong_ends_the_row(serving, tasks, monkeypatch):
    server = serving()
    made = openenv.CropEnvironment._observation
    changes = iter([{"episode_id": "other"}, {"window": [0]}, {"frames": ["!"] * 4}, {"video": {}}])

    def wrong(self, *given):
        return made(self, *given).model_copy(update=next(changes))

    monkeypatch.setattr(openenv.CropEnvironment, "_observation", wrong)
    farm = RemoteVectorEnv(1, [server.address], tasks=tasks, **SMALL)
    for said in ("is of episode 'other'", "one time and one window", "base64", "'duration'"):
        _, infos = farm.reset(seed=1)
        assert infos["stop_reason"][0] == "server_error" and said in infos["error"][0]
    farm.close()


def test_the_env_group_of_a_recipe_plays_on_servers(serving, tasks, tmp_path):
    for path in {task.video for task in tasks.tasks}:
        os.link(path, tmp_path / Path(path).name)
    manifest = write_manifest(tmp_path / "tasks.jsonl", tasks.tasks)
    server = serving(manifest)
    config = EnvConfig(tasks=manifest, servers=(server.address,), **SMALL)
    farm, local = config.make(2), replace(config, servers=()).make(2)
    assert isinstance(farm, RemoteVectorEnv) and not isinstance(local, RemoteVectorEnv)
    assert same(farm.reset(seed=1), local.reset(seed=1))
    rollouts = [play(env, Wrong(), [Start("colour", 4, 1)] * 2) for env in (farm, local)]
    assert rollouts[0] == rollouts[1] and rollouts[0][0].stop_reason == "answered"
    server.stop()
    (lost, _) = play(farm, Wrong(), [Start("colour", 4, 1)] * 2)
    assert (lost.stop_reason, lost.terms, lost.compliant) == ("server_error", {}, False)
    farm.close()
    local.close()


class Wrong:
    """Answers A at once."""

    def begin(self, rows):
        pass

    def act(self, observations, rows):
        return [Decision(act(answer="A")) for _ in rows]


def test_the_command_serves_and_the_example_plays(tasks, tmp_path):
    for path in {task.video for task in tasks.tasks}:
        os.link(path, tmp_path / Path(path).name)
    manifest = write_manifest(tmp_path / "tasks.jsonl", tasks.tasks)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"env: {{tasks: {manifest}, frame_size: [32, 64]}}")
    words = ["serve", "--openenv", str(recipe), "--port", str(port), "--sessions", "2"]
    server = subprocess.Popen(
        [sys.executable, "-m", "train", *words], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert server.stdout.readline() == f"tasks (train: 4) on http://127.0.0.1:{port}\n"
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        example = ROOT / "examples" / "openenv_client.py"
        assert len(example.read_text().splitlines()) <= 40
        reward = runpy.run_path(str(example))["main"](f"http://127.0.0.1:{port}")
        assert 0.0 <= reward <= 3.0
    finally:
        server.terminate()
        assert server.wait(20) in (0, -signal.SIGTERM, 130)
