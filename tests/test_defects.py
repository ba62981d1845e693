"""Defects of released agentic-video code that belong to no single room, each with a test.

The others stand beside the code that they are about: `grep -rn test_defect_ tests`.
"""

from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
from support.gloo_processes import run
from support.videos import read_index

torch = pytest.importorskip("torch")

from agents.algorithm.config import PARAGRPOConfig  # noqa: E402
from agents.algorithm.credit import credit  # noqa: E402
from agents.base import Completion, Decision  # noqa: E402
from agents.config import AgentConfig, Limits  # noqa: E402
from agents.model.mini import MiniConfig, build_mini  # noqa: E402
from agents.model.vlm import VisionLanguageModel  # noqa: E402
from agents.text.conversation import ConversationAgent, Sampled  # noqa: E402
from paravt_env.protocol import Role, action_from_completion, render_completion  # noqa: E402
from paravt_env.protocol.parts import forced_answer_text  # noqa: E402
from paravt_env.protocol.styles import PROMPTS  # noqa: E402
from train.config import recipe  # noqa: E402
from train.config.evaluation import EvalConfig  # noqa: E402
from train.config.parallel import ParallelConfig  # noqa: E402
from train.config.run import TrainConfig  # noqa: E402
from train.distributed.processes import Group, join  # noqa: E402
from train.evaluation import agents  # noqa: E402
from train.learner.logprobs import TokenLogprobs  # noqa: E402
from train.learner.meter import Meter  # noqa: E402
from train.loop import launch  # noqa: E402
from train.packing.shares import idle  # noqa: E402
from train.rollout.play import play  # noqa: E402
from train.rollout.starts import Start  # noqa: E402

SHAPE = MiniConfig(32, 1, 2, 64, 32, 1, 2, 64, vocabulary=300)
CALLS = render_completion("Both ends, please.", [(10.0, 12.0), (20.0, 22.0)])
ANSWER = render_completion("It is clear now.", [], "B")


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    return VisionLanguageModel.load(
        build_mini(tmp_path_factory.mktemp("mini"), ["a red scene"], SHAPE)
    )


class Scripted(ConversationAgent):
    """Draws fixed texts, letter by letter, so that tokenising them again would show."""

    def __init__(self, vlm, turns, settings, **config):
        config = {"prompt_style": "compact", "forced_prefix": "<think>\n", **config}
        super().__init__(vlm, AgentConfig(**config), Limits.of(settings))
        self.turns, self.drawn, self.prompts = turns, [], []

    def _sample(self, text):
        letters = [self.vlm.tokenizer(c, add_special_tokens=False)["input_ids"] for c in text]
        ids = [token for letter in letters for token in letter] + [self.stop_id]
        return Sampled(ids, [-float(i + 1) for i in range(len(ids))])

    def draw(self, turns):
        self.prompts.append([self.vlm.tokenizer.decode(turn.context.ids) for turn in turns])
        text = self.turns[len(self.drawn)].removeprefix(self.config.forced_prefix)
        self.drawn.append([self._sample(text) for _ in turns])
        return self.drawn[-1]

    def read(self, readings):
        return [self._sample(f"seen {reading.call}") for reading in readings]


def test_defect_04_what_was_sampled_is_what_is_trained(vlm, make_vector):
    env = make_vector(1)
    agent = Scripted(vlm, [CALLS, ANSWER], env.simulation.settings)
    (rollout,) = play(env, agent, [Start("colour", 2, 0)])
    assert [turn["completion"] for turn in rollout.turns] == [CALLS, ANSWER]
    main = rollout.trajectories[0]
    drawn = [(drawn[0].ids, drawn[0].logprobs) for drawn in agent.drawn]
    assert main.branch_ids[main.loss_mask].tolist() == [i for ids, _ in drawn for i in ids]
    assert main.logprobs[main.loss_mask].tolist() == [p for _, logs in drawn for p in logs]
    assert vlm.tokenizer(CALLS, add_special_tokens=False)["input_ids"] != drawn[0][0][:-1]


def test_defect_04_both_tool_results_come_after_the_turn_that_called(vlm, make_vector):
    env = make_vector(1)
    agent = Scripted(vlm, [CALLS, ANSWER], env.simulation.settings)
    (rollout,) = play(env, agent, [Start("colour", 2, 0)])
    main = rollout.trajectories[0]
    first = len(agent.drawn[0][0].ids)
    prefix = len(vlm.tokenizer("<think>\n", add_special_tokens=False)["input_ids"])
    (sampled,) = np.nonzero(main.loss_mask)
    between = main.branch_ids[sampled[first - 1] + 1 : sampled[first] - prefix]
    assert vlm.tokenizer.decode(between) == (
        "\n<|im_start|>user\n1 seen 0\n2 seen 1\n<|im_end|>\n<|im_start|>assistant\n"
    )
    roles = main.roles[sampled[first - 1] + 1 : sampled[first] - prefix]
    assert set(roles.tolist()) == {int(Role.response)}


def test_defect_08_sub_agents_read_their_own_crop_with_the_question_and_are_trained(
    vlm, make_vector
):
    env = make_vector(2)
    agent = Scripted(vlm, [CALLS, ANSWER], env.simulation.settings)
    rollouts = play(env, agent, [Start("colour", 2, 0), Start("shape", 2, 0)])
    readings = [[one for one in r.trajectories if one.kind == "subagent"] for r in rollouts]
    # 4 frames a second; the first crop is seen at 10.5 and 11.5 s, the second at 20.5 and 21.5 s
    seen = [[[read_index(i) for i in one.prompt_images] for one in row] for row in readings]
    assert seen == [[[42, 46], [82, 86]], [[1042, 1046], [1082, 1086]]]
    for row, question in zip(readings, ("Which colour?", "Which shape?"), strict=True):
        for one in row:
            assert question in vlm.tokenizer.decode(one.prompt_ids)
            assert one.loss_mask.all()
    scored = [replace(r, reward=reward) for r, reward in zip(rollouts, (1.0, 0.0), strict=True)]
    config = PARAGRPOConfig(batch_normalise=False)
    weights = env.simulation.preset.weights
    batch = credit([scored], config, weights).batch
    advantages = [float(one[0]) for one in batch.advantages]
    assert [one.kind for one in batch.trajectories] == ["main", "subagent", "subagent"] * 2
    assert advantages == pytest.approx([1.0] * 3 + [-1.0] * 3)


@pytest.mark.parametrize("style", ["paravt", "compact"])
def test_defect_19_direct_and_agentic_prompts_are_not_swapped(vlm, make_vector, style):
    told = {}
    for mode, turns in (("direct", 0), ("agentic", 3)):
        env = make_vector(1, max_turns=turns)
        agent = Scripted(vlm, [ANSWER], env.simulation.settings, prompt_style=style)
        play(env, agent, [Start("colour", 2, 0)])
        ((told[mode],),) = agent.prompts
    forced = forced_answer_text(PROMPTS[style])
    assert forced in told["direct"]
    assert forced not in told["agentic"]
    for text in told.values():
        assert text.count("Which colour?\nA. red\nB. blue\nC. green") == 1


def test_defect_22_evaluation_plays_with_the_settings_of_training(vlm, monkeypatch, make_vector):
    config = TrainConfig(
        agent=AgentConfig("somewhere", evidence="frames", prompt_style="compact", temperature=0.9),
        evaluation=EvalConfig(temperature=0.1),
    )
    expected = replace(config.agent, temperature=0.1)
    env = make_vector(1)
    monkeypatch.setattr(agents, "load_agent", lambda agent, limits, seed: (agent, limits))
    assert agents.evaluated_agent(config)(env) == (expected, env.simulation.settings)

    made = []
    monkeypatch.setattr(
        launch, "agent_factory", lambda engine: lambda vlm, agent, *rest: made.append(agent)
    )
    monkeypatch.setattr(launch, "make_env", lambda *given, **named: env)
    with ExitStack() as resources:
        launch.validation(config, vlm, resources)
    assert made == [expected]


class Fixed:
    """Says the same in every row."""

    def __init__(self, answer):
        self.text = render_completion("I know this one.", [], answer)

    def begin(self, rows):
        pass

    def act(self, observations, rows):
        action = action_from_completion(self.text, 3)
        return [Decision(action, Completion(self.text, (), (), ())) for _ in rows]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("B", ["colour"]),
        ("A", ["shape"]),
        ("Ada", ["name"]),
        ("10-20", ["time"]),
        ("blue", ["colour"]),
    ],
)
def test_defect_23_each_kind_of_question_has_its_own_measure(make_vector, answer, right):
    names = ["colour", "time", "shape", "name"]
    rollouts = play(make_vector(4), Fixed(answer), [Start(name, 2, 0) for name in names])
    assert [one.task_id for one in rollouts if one.correct == 1.0] == right
    assert all(one.correct in (0.0, 1.0) for one in rollouts)


@pytest.mark.parametrize("name", ["paragrpo_mini", "paragrpo_8b"])
def test_defect_24_the_recipes_validate_during_training(name):
    run = recipe.load(TrainConfig, name).run
    assert 0 < run.eval_every < run.steps
    assert run.eval_tasks > 0


def encode_together(folder, counts):
    """Features and the vision tower's gradient for each number of frames, shared and alone."""
    row = join(ParallelConfig(sequence=3, timeout=900))
    found = {}
    for count in counts:
        rng = np.random.default_rng(count)
        frames = tuple(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8) for _ in range(count))
        both = []
        for group in (row.sequence, Group()):
            vlm = VisionLanguageModel.load(folder, "float64")
            batch = replace(idle(vlm), images=frames, image_order=tuple(range(count))[::-1])
            meter = Meter()
            rows = TokenLogprobs(vlm, 1.0, 8, "dense", group)._features(batch, meter)
            order = np.random.default_rng(0).permutation(rows.numel())
            weights = torch.from_numpy(order.reshape(rows.shape)) / rows.numel()
            (rows * weights / group.size).sum().backward()
            tower = vlm.model.model.visual.named_parameters()
            gradient = {n: p.grad.clone() for n, p in tower if p.grad is not None}
            if group.size > 1:
                for one in gradient.values():
                    torch.distributed.all_reduce(one)
            both.append((rows.detach(), gradient, int(meter.totals["frames_encoded"])))
        (rows, gradient, own), (expected, wanted, _) = both
        found[count] = {
            "shape": rows.shape == expected.shape,
            "features": float((rows - expected).abs().max()),
            "gradient": max(float((gradient[n] - g).abs().max()) for n, g in wanted.items()),
            "norm": max(float(g.abs().max()) for g in wanted.values()),
            "frames": own,
        }
    return found


def test_defect_28_frames_that_the_processes_do_not_divide_are_encoded_all_the_same(tmp_path):
    folder = build_mini(tmp_path / "mini", ["a red scene"], SHAPE)
    processes = run(encode_together, 3, folder, (1, 2, 4, 5, 6))
    for found in processes:
        for count, one in found.items():
            assert one["shape"], count
            assert one["features"] < 1e-9 and one["gradient"] < 1e-9 < one["norm"], count
    shares = {n: [found[n]["frames"] for found in processes] for n in (1, 2, 4, 5, 6)}
    assert shares == {1: [1, 0, 0], 2: [1, 1, 0], 4: [2, 1, 1], 5: [2, 2, 1], 6: [2, 2, 2]}
