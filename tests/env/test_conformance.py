"""What every registered id promises to users of Gymnasium."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
import venv
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import DependencyNotInstalled
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from support.builders import ListTasks, act, make_task, same, write_manifest
from support.sandboxes import needs_sandbox

import envs_registry
import paravt_env
from agents.config import AgentConfig, Limits
from paravt_env.env import LongVideoEnv
from paravt_env.protocol import action_from_completion, render_completion
from paravt_env.spaces import UnicodeText, batch_actions, empty_action, unbatch
from paravt_env.wrappers import ArrayAction, ArrayObservation

ROOT = Path(__file__).parents[2]
CODED = ("ParaVT-LongVideo-Code-v0", "ParaVT-Image-v0")
NAMES = list(envs_registry.VARIANTS)
IDS = [pytest.param(name, marks=needs_sandbox) if name in CODED else name for name in NAMES]
TEXT = "ParaVT-LongVideo-Text-v0"


@pytest.fixture(scope="module")
def manifest(clip):
    """Plain data, as a spec needs: two tasks beside the clip."""
    tasks = [make_task(clip), make_task(clip, "two", answer="A", evidence=((3.0, 5.0),))]
    return write_manifest(Path(clip).parent / "conformance.jsonl", tasks)


@pytest.fixture
def make(manifest):
    """Makes an id as users do; closed after the test."""
    made = []

    def build(env_id, **settings):
        small = {"tasks": manifest, "frame_size": [32, 64], "frames_per_crop": 2}
        made.append(gym.make(f"paravt_env:{env_id}", **{**small, **settings}))
        return made[-1]

    yield build
    for env in made:
        env.close()


def look(env_id, env, *windows):
    """The action that crops, in the form that the id takes."""
    if env_id == TEXT:
        return render_completion("I look.", list(windows))
    if env_id in CODED:
        code = "show({})".format(", ".join(f"video.frames{(*one, 1)}" for one in windows))
        return action_from_completion(render_completion("I look.", code=code), 1, code=True)
    settings = env.unwrapped.simulation.settings
    most = settings.max_crops
    return empty_action(most, settings.crop_density) | act(*windows[:most], max_crops=most)


def answer(env_id, env, letter):
    if env_id == TEXT:
        return render_completion("I know.", answer=letter)
    settings = env.unwrapped.simulation.settings
    return {**empty_action(settings.max_crops, settings.crop_density), "answer": letter}


def episode(env_id, env, seed):
    """A whole episode: what came back, in order."""
    results = [env.reset(seed=seed)]
    results.append(env.step(look(env_id, env, (1, 2), (9, 11))))
    results.append(env.step(answer(env_id, env, "B")))
    return results


# --- the single environment -----------------------------------------------------------------------


def test_the_variants_are_registered_with_and_without_the_prefix():
    expected = ["", "-Sequential", "-OnDemand", "-Frames", "-Text", "-Density"]
    named = [*(f"ParaVT-LongVideo{name}-v0" for name in expected), *CODED]
    assert named == NAMES == list(paravt_env.ENV_IDS)
    assert all(env_id in gym.registry for env_id in NAMES)


@pytest.mark.parametrize("env_id", IDS)
def test_checker(make, env_id):
    env = make(env_id)
    check_env(env.unwrapped, skip_render_check=True)  # below, each mode by itself
    assert env.spec.max_episode_steps is None


@pytest.mark.parametrize("env_id", IDS)
def test_same_seed_same_episode(make, env_id):
    first, second = make(env_id, frame_budget=None), make(env_id, frame_budget=None)
    assert same(episode(env_id, first, 5), episode(env_id, second, 5))
    assert same(first.reset(), second.reset())
    starts = {(first.reset()[1]["task_id"], first.reset()[1]["frame_budget"]) for _ in range(30)}
    assert len(starts) > 5


@pytest.mark.parametrize("env_id", IDS)
def test_a_pickled_environment_goes_on(make, env_id):
    env = make(env_id)
    env.reset(seed=3)
    env.step(look(env_id, env, (1, 2)))
    other = pickle.loads(pickle.dumps(env))
    assert same(env.step(look(env_id, env, (4, 6))), other.step(look(env_id, env, (4, 6))))
    assert same(episode(env_id, env, 4), episode(env_id, other, 4))
    other.close()


@pytest.mark.parametrize("env_id", IDS)
def test_spec_survives_json(make, env_id):
    env = make(env_id, render_mode="ansi", reward={"preset": "paravt", "weights": {"answer": 2.0}})
    spec = EnvSpec.from_json(env.spec.to_json())
    assert spec == env.spec
    again = gym.make(spec)
    assert type(again.unwrapped) is type(env.unwrapped)
    assert again.unwrapped.simulation.settings == env.unwrapped.simulation.settings
    assert same(episode(env_id, env, 1), episode(env_id, again, 1))
    again.close()


# --- variants -------------------------------------------------------------------------------------


def test_sequential_takes_one_crop_a_turn(make):
    env = make("ParaVT-LongVideo-Sequential-v0")
    assert env.action_space["crops"].shape == (1, 2)
    assert env.unwrapped.simulation.settings.max_turns == 5


def test_on_demand_shows_no_overview(make):
    observation, info = make("ParaVT-LongVideo-OnDemand-v0").reset(seed=0)
    assert info["frames_seen"] == 0 and set(observation["window"].tolist()) == {-1}


def test_frames_differs_in_what_agents_are_asked_and_in_nothing_else(make):
    plain, frames = make("ParaVT-LongVideo-v0"), make("ParaVT-LongVideo-Frames-v0")
    assert same(episode("", plain, 7), episode("", frames, 7))
    asked = [Limits.of(env.unwrapped.simulation.settings).evidence for env in (plain, frames)]
    assert asked == ["subagent", "frames"]
    assert AgentConfig().evidence is None
    with pytest.raises(ValueError, match="did you mean 'frames'"):
        make("ParaVT-LongVideo-Frames-v0", evidence="frame")


def test_text_takes_completions(make):
    env = make(TEXT, max_crops=2)
    assert env.action_space == UnicodeText()
    env.reset(seed=0, options={"task_id": "colour"})
    text = render_completion("Three.", [(1, 3), (8, 9), (4, 5)])
    info = env.step(text)[-1]
    assert [crop["status"] for crop in info["crops"]] == ["ok", "ok", "over_limit"]
    _, reward, terminated, _, info = env.step(render_completion("Blue.", answer="B"))
    assert terminated and info["answer"] == "B" and info["compliant"] and reward > 0
    assert env.unwrapped.transcript.turns[0].parsed.text == text


def test_the_docstring_has_the_usual_headings_and_every_id():
    headings = re.findall(r"^    ## (.*)$", LongVideoEnv.__doc__, re.MULTILINE)
    assert headings == [
        "Description",
        "Mission Space",
        "Action Space",
        "Observation Space",
        "Rewards",
        "Starting State",
        "Termination",
        "Registered Configurations",
    ]
    listed = re.findall(r"^    - `(ParaVT-.*?-v0)`", LongVideoEnv.__doc__, re.MULTILINE)
    assert listed == NAMES


# --- rendering ------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", IDS)
def test_render_modes_without_a_window(make, env_id):
    for mode in ("rgb_array", "ansi", "html"):
        env = make(env_id, render_mode=mode)
        assert mode in env.metadata["render_modes"]
        env.reset(seed=0)
        env.step(look(env_id, env, (1, 2)))
        shown = env.render()
        if mode == "rgb_array":
            assert shown.dtype == np.uint8 and shown.ndim == 3 and shown.any()
        else:
            assert "call 1: 1 frames" in shown
        if mode == "html":
            assert shown.startswith('<figure><img alt="" src="data:image/png;base64,')


def test_html_escapes_what_was_asked(clip):
    env = LongVideoEnv(
        ListTasks([make_task(clip, question="</pre><script>alert(1)</script>")]),
        render_mode="html",
        frame_size=(32, 64),
        frame_budget=1,
    )
    env.reset(seed=0)
    assert "<script>" not in env.render() and "&lt;script&gt;" in env.render()
    env.close()


@pytest.mark.parametrize("env_id", IDS)
def test_human_mode_shows_every_observation_in_a_window(make, env_id, monkeypatch):
    pygame = pytest.importorskip("pygame", reason="the human extra is not installed")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setitem(LongVideoEnv.metadata, "render_fps", 1000)
    flips = []
    monkeypatch.setattr(pygame.display, "flip", lambda: flips.append(pygame.display.get_surface()))
    env = make(env_id, render_mode="human", frame_budget=2)
    assert not flips
    env.reset(seed=0)
    assert len(flips) == 1 and pygame.surfarray.array3d(flips[0]).any()
    env.step(look(env_id, env, (1, 2)))
    assert env.render() is None and len(flips) == 3
    copied = pickle.loads(pickle.dumps(env.unwrapped))
    copied.close()
    assert pygame.display.get_init()
    env.close()
    env.close()
    assert not pygame.display.get_init()


def test_human_mode_without_pygame_says_what_to_install(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(DependencyNotInstalled, match=r"pip install 'paravt\[human\]'"):
        make(IDS[0], render_mode="human")


def test_human_mode_without_a_display_says_what_to_do(make, monkeypatch):
    pygame = pytest.importorskip("pygame", reason="the human extra is not installed")
    env = make(IDS[0], render_mode="human")

    def fail(size):
        raise pygame.error("no available video device")

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(pygame.display, "set_mode", fail)
    with pytest.raises(RuntimeError, match="SDL_VIDEODRIVER=dummy"):
        env.reset(seed=0)


# --- many environments ----------------------------------------------------------------------------


def batch(env_id, rows):
    return tuple(rows) if env_id == TEXT else batch_actions(rows, len(rows[0]["crop_mask"]))


@pytest.mark.parametrize("env_id", IDS)
def test_own_vector_environment_equals_singles(make, env_id, manifest):
    singles = [make(env_id) for _ in range(3)]
    settings = {"tasks": manifest, "frame_size": [32, 64], "frames_per_crop": 2}
    vector = gym.make_vec(f"paravt_env:{env_id}", num_envs=3, **settings)
    space = singles[0].observation_space
    observations, _ = vector.reset(seed=8)
    expected = [single.reset(seed=8 + row)[0] for row, single in enumerate(singles)]
    for step in range(3):
        assert all(same(unbatch(observations, row, space), expected[row]) for row in range(3))
        if step == 0:
            actions = [look(env_id, s, (i, i + 2), (20, 21)) for i, s in enumerate(singles)]
        else:
            actions = [answer(env_id, s, "AB"[i % 2]) for i, s in enumerate(singles)]
        if step < 2:
            observations, rewards, terminated, *_ = vector.step(batch(env_id, actions))
            single_steps = [s.step(a) for s, a in zip(singles, actions, strict=True)]
            expected = [one[0] for one in single_steps]
            assert [one[1] for one in single_steps] == rewards.tolist()
            assert [one[2] for one in single_steps] == terminated.tolist() == [step == 1] * 3
    vector.close()


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_stock_vectorisation(make, env_id, manifest, kind):
    def one():
        settings = {"tasks": manifest, "frame_size": [32, 64], "frames_per_crop": 2}
        return gym.make(f"paravt_env:{env_id}", **settings)

    stock = SyncVectorEnv([one] * 2) if kind == "sync" else AsyncVectorEnv([one] * 2, False)
    single = make(env_id)
    try:
        observations, _ = stock.reset(seed=[3, 3])
        assert same(unbatch(observations, 1, single.observation_space), single.reset(seed=3)[0])
        action = look(env_id, single, (1, 2))
        observations, *_ = stock.step(batch(env_id, [action] * 2))
        assert same(unbatch(observations, 0, single.observation_space), single.step(action)[0])
        *_, terminated, _, _ = stock.step(batch(env_id, [answer(env_id, single, "B")] * 2))
        assert terminated.all()
    finally:
        stock.close()


@pytest.mark.parametrize("env_id", IDS)
def test_shared_memory_is_refused_clearly(env_id, manifest):
    with pytest.raises(ValueError, match="shared_memory=False"):
        gym.make_vec(f"paravt_env:{env_id}", num_envs=2, vectorization_mode="async", tasks=manifest)


def test_a_text_row_count_that_does_not_fit_is_refused(manifest):
    vector = gym.make_vec(f"paravt_env:{TEXT}", num_envs=2, tasks=manifest, frame_size=[32, 64])
    vector.reset(seed=0)
    for wrong in ("text", ["one"], ["one", "two", "three"], None, 3):
        with pytest.raises(ValueError, match="2 texts, one a row"):
            vector.step(wrong)
    vector.close()


@pytest.mark.parametrize("env_id", [env_id for env_id in NAMES if env_id not in (TEXT, *CODED)])
def test_stable_baselines3_accepts_the_array_wrappers(make, env_id):
    checker = pytest.importorskip(
        "stable_baselines3.common.env_checker", reason="the sb3 extra is not installed"
    )
    env = ArrayObservation(ArrayAction(make(env_id, max_crops=2)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(env, warn=True)


# --- the environment alone ------------------------------------------------------------------------

PLAY = """
import gymnasium as gym
import paravt_env, paravt_env.wrappers
ids = [env_id for env_id in paravt_env.ENV_IDS if env_id not in {coded!r}]
for env_id in ids:
    env = gym.make(env_id, tasks={tasks!r}, frame_size=[32, 64], render_mode="rgb_array")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.render()
    env.close()
    vector = gym.make_vec(env_id, num_envs=2, tasks={tasks!r}, frame_size=[32, 64])
    vector.reset(seed=0)
    vector.step(vector.action_space.sample())
    vector.close()
print("played", len(ids))
"""

# An import of anything but the core's own distributions (and theirs) fails.
ONLY_CORE = """
import sys
allowed = {"gymnasium", "numpy", "av", "pyarrow", "cloudpickle", "typing_extensions"}
allowed |= {"farama_notifications", "paravt_env", "envs_registry", *sys.stdlib_module_names}
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Block())
"""


def test_the_environment_needs_the_core_distributions_alone(manifest):
    code = ONLY_CORE + PLAY.format(coded=CODED, tasks=manifest)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"played {len(NAMES) - len(CODED)}"


@pytest.mark.skipif(not os.environ.get("PARAVT_NIGHTLY"), reason="nightly: installs from the index")
def test_pip_install_of_the_environment_brings_no_torch(manifest, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")

    def run(*words):
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)

    sources = tmp_path / "sources"  # a build in place would leave files behind
    for name in ("envs_registry", "paravt_env", "agents", "train"):
        shutil.copytree(ROOT / name, sources / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources / name)
    run(python, "-m", "pip", "install", "-q", str(sources))
    listed = run(python, "-m", "pip", "list", "--format=freeze").stdout.lower()
    assert "paravt==" in listed and "torch" not in listed and "transformers" not in listed
    assert "played" in run(python, "-c", PLAY.format(coded=CODED, tasks=manifest)).stdout
