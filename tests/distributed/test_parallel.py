"""Several processes against one: the same outputs, gradients and losses."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.gloo_processes import run
from support.learning import MANY_TURNS, ONE_TURN, SHAPE, config, make_batch

from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from train.common.errors import ConfigError
from train.config.learner import LoraConfig
from train.config.parallel import ParallelConfig
from train.distributed.processes import ALONE, Group, Processes, join, layout
from train.learner import attention, lora, moments
from train.learner.learner import Learner
from train.learner.meter import Meter
from train.learner.weights import whole
from train.packing.pack import pack
from train.packing.samples import Sample, grow_trees
from train.packing.shares import rounds, share
from train.workers.weight_sync import Weights as Sent

SEVERAL = [*MANY_TURNS, *ONE_TURN, [[11, 2], [2]], [[1]]]


def load(folder, dtype="float32", key_heads=None):
    """The tiny policy; `key_heads` makes one with grouped queries."""
    vlm = VisionLanguageModel.load(folder, dtype)
    if key_heads:
        settings = copy.deepcopy(vlm.model.config)
        settings.text_config.num_key_value_heads = key_heads
        torch.manual_seed(0)
        model = type(vlm.model)(settings).eval()
        vlm = vlm.around(model)
    return vlm


def gradients(learner, batch):
    """Gradients by name, the loss and the log-probabilities of all trained tokens."""
    samples = [Sample(t, a) for t, a in zip(batch.trajectories, batch.advantages, strict=True)]
    meter = Meter()
    learner.optimizer.zero_grad()
    learner.accumulate(samples, meter)
    found = {
        name: whole(p.grad).clone()
        for name, p in learner.weights.parameters.items()
        if p.grad is not None
    }
    meter = Meter.of_all(learner.processes.gather(meter))
    outputs = np.concatenate([s.proximal for s in learner._with_proximal(samples)])
    return found, meter.metrics(), outputs


def difference(one, other):
    """Relative difference of two sets of gradients; one that is missing is zero."""
    names = one.keys() | other.keys()
    zero = torch.zeros(())
    apart = sum(float((one.get(n, zero) - other.get(n, zero)).square().sum()) for n in names)
    return (apart / sum(float(g.square().sum()) for g in other.values())) ** 0.5


def compare(parallel, make, batch, **settings):
    """How far several processes are from one: gradients, outputs, loss and entropy."""
    both = [
        gradients(Learner(make(), config(**settings), processes=one), batch)
        for one in (parallel, ALONE)
    ]
    (many, metrics, outputs), (one, expected, plain) = both
    return {
        "gradients": difference(many, one),
        "outputs": float(np.abs(outputs - plain).max()),
        "metrics": max(abs(metrics[n] - expected[n]) for n in ("loss", "entropy", "ratio")),
        "tokens": (metrics["trained_tokens"], expected["trained_tokens"]),
        "samples": (metrics["samples"], expected["samples"]),
        "packed": (metrics["packed_tokens"], expected["packed_tokens"]),
        "frames": (metrics.get("frames_encoded"), expected.get("frames_encoded")),
        "norm": sum(float(g.square().sum()) for g in one.values()) ** 0.5,
    }


def text_only(batch):
    """The batch's sub-agent readings lose their frames: every second tree is text."""
    for i, one in enumerate(batch.trajectories):
        if one.kind == "subagent":
            ids = np.where(one.prompt_ids >= 250, 12, one.prompt_ids)
            ids = np.where((ids > 0) & (ids < 10), 12, ids)
            batch.trajectories[i] = replace(one, prompt_ids=ids, prompt_images=())
    return batch


def five_steps(learner, batch):
    """The losses of five updates by plain gradient descent, on what an older version drew.

    Of what this version drew, pi_prox is the policy itself, and every loss would be the same.
    """
    learner.optimizer = torch.optim.SGD(learner.parameters, lr=0.02)
    learner.scheduler = torch.optim.lr_scheduler.ConstantLR(learner.optimizer, 1.0)
    return [learner.update(batch, version=1)["loss"] for _ in range(5)]


def two(folder):
    """Everything that two processes check; runs in each."""
    parallel = join(ParallelConfig(timeout=900))
    pair = replace(ParallelConfig(timeout=900), sequence=2)
    found = {}

    def double():
        return load(folder, "float64")

    def single():
        return load(folder, key_heads=2)

    batch = make_batch(double(), SEVERAL, frames=True, subagents=True)
    found["data"] = compare(parallel, double, batch, micro_batch_tokens=200)
    found["steps"] = [
        five_steps(Learner(double(), config(staleness=1), processes=one), batch)
        for one in (parallel, ALONE)
    ]
    lonely = make_batch(double(), [[[3, 2], [4]]])
    found["one tree"] = compare(parallel, double, lonely)
    mixed = text_only(make_batch(double(), [[[4], [6]]], subagents=True))
    found["frames in some"] = compare(parallel, double, mixed, micro_batch_tokens=1)
    found["frozen vision"] = compare(parallel, double, batch, freeze_vision=True)

    memory = replace(parallel, config=replace(parallel.config, recompute=True, offload=True))
    found["recompute, offload"] = compare(memory, double, batch)

    def adapted():
        vlm = lora.add(double(), LoraConfig(rank=4))
        torch.manual_seed(1)
        for name, p in vlm.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.2)
        return vlm

    found["lora"] = compare(parallel, adapted, batch, kl_coefficient=0.3)

    def with_reference(one):
        return Learner(double(), config(kl_coefficient=0.3), other(), processes=one)

    def other():
        vlm = double()
        with torch.no_grad():
            for weight in vlm.model.parameters():
                weight.mul_(1.05)
        return vlm

    many, alone = (gradients(with_reference(one), batch) for one in (parallel, ALONE))
    found["reference"] = {
        "gradients": difference(many[0], alone[0]),
        "kl": (many[1]["kl"], alone[1]["kl"]),
    }
    found["low precision"] = low_precision(folder, parallel)
    found["shard"] = sharded_size(double, parallel)
    found["resumed"] = {
        f"{before.world.size} to {after.world.size}": resumed(double, before, after, lonely)
        for before, after in ((parallel, ALONE), (ALONE, parallel), (parallel, parallel))
    }
    found["skipped"] = skipped(double, parallel)

    row = replace(join(pair))
    for name, frames in (("sequence", True), ("sequence, frames only in the prompt", False)):
        uneven = make_batch(single(), SEVERAL, frames=frames, subagents=frames)
        found[name] = compare(row, single, uneven, attention="dense", micro_batch_tokens=300)
    attention.SHORT = 0  # these rows are short, and would be computed with a mask
    found["sequence, split"] = compare(row, single, uneven, attention="split")
    found["sequence, frozen vision"] = compare(row, single, uneven, freeze_vision=True)
    found["sequence, gspo"] = compare(row, single, uneven, loss="gspo")
    videos = make_batch(single(), SEVERAL, frames=True, subagents=True, pairs=True)
    found["sequence, videos"] = compare(row, single, videos, micro_batch_tokens=300)
    found["sequence, text"] = compare(row, single, mixed, micro_batch_tokens=1)
    try:
        three = Group(0, 3)
        from train.distributed.sequence_parallel import HeadExchange

        HeadExchange(three, "sdpa").heads_for_tokens(torch.zeros(1, 4, 2, 2))
    except ValueError as error:
        found["heads"] = str(error)
    return found


def low_precision(folder, parallel):
    """Ten small steps in bfloat16: how far the policy and its fp32 weights have come."""
    found = {}
    for name, one in (("many", parallel), ("one", ALONE)):
        vlm = load(folder, "bfloat16")
        batch = make_batch(vlm, ONE_TURN)
        learner = Learner(vlm, config(learning_rate=1e-5), processes=one)
        before = {n: whole(p.detach()).clone() for n, p in learner.weights.parameters.items()}
        for _ in range(10):
            learner.update(batch)
        after = learner.weights.state()
        moved = {n: after[f"weights.{n}"] - before[n] for n in before}
        policy = dict(vlm.model.named_parameters())
        found[name] = {
            "moved": torch.cat([m.flatten() for m in moved.values()]).numpy(),
            "dtypes": {str(after[f"weights.{n}"].dtype) for n in before},
            "rounded": all(
                torch.equal(policy[n].detach(), after[f"weights.{n}"].bfloat16()) for n in before
            ),
        }
    return found


def resumed(make, before, after, batch):
    """A third step after a checkpoint of two: how far apart it ends with and without the stop."""

    def learner_of(vlm, parallel):
        return Learner(vlm, config(warmup_steps=4), processes=parallel)

    whole_run = learner_of(make(), before)
    for _ in range(2):
        whole_run.update(batch)
    tensors = moments.optimizer_tensors(whole_run.optimizer) | whole_run.weights.state()
    tensors = {name: value.clone() for name, value in tensors.items()}  # as a file would
    groups = moments.optimizer_groups(whole_run.optimizer)
    vlm = make()
    vlm.model.load_state_dict(whole_run.vlm.model.state_dict())
    second = learner_of(vlm, after)
    second.weights.restore(tensors)
    moments.restore_optimizer(second.optimizer, tensors, groups)
    second.scheduler.load_state_dict(whole_run.scheduler.state_dict())
    one, other = whole_run.update(batch), second.update(batch)
    pairs = zip(whole_run.vlm.model.parameters(), vlm.model.parameters(), strict=True)
    apart = max(float((a - b).abs().max()) for a, b in pairs)
    return apart, one["learning_rate"] == other["learning_rate"]


def skipped(make, parallel):
    """A gradient that is not finite on one process is skipped on all."""
    vlm = make()
    batch = make_batch(vlm, ONE_TURN)
    batch.advantages[0][0] = np.nan
    metrics = Learner(vlm, config(), processes=parallel).update(batch)
    fresh = zip(vlm.model.parameters(), make().model.parameters(), strict=True)
    return metrics["optimizer_steps_skipped"], all(torch.equal(a, b) for a, b in fresh)


def sharded_size(make, parallel):
    """Numbers that this process holds of all."""
    learner = Learner(make(), config(), processes=parallel)
    held = sum(p.to_local().numel() for p in learner.parameters)
    return held, sum(p.numel() for p in learner.parameters)


def adapters_sent(folder):
    """What an engine would be sent after an update of adapters: names, sums, and what moved."""
    parallel = join(ParallelConfig(timeout=900))
    vlm = lora.add(load(folder), LoraConfig(rank=2, alpha=6))
    learner = Learner(vlm, config(learning_rate=0.05), processes=parallel)
    learner.update(make_batch(vlm, ONE_TURN))
    trained = {name: whole(p.detach()) for name, p in learner.weights.parameters.items()}
    sent, plain = dict(Sent(vlm.model)), load(folder).model.state_dict()
    apart, moved = 0.0, set()
    for name, value in plain.items():
        layer = name.removesuffix(".weight")
        up = trained.get(f"{layer}.lora_B.default.weight")
        if up is not None:
            value = value + 3 * up @ trained[f"{layer}.lora_A.default.weight"]
        apart = max(apart, float((sent[name] - value).abs().max()))
        if not torch.equal(sent[name], plain[name]):
            moved.add(layer.rpartition(".")[2])
    return {
        "sums": {name: float(value.double().sum()) for name, value in sent.items()},
        "names": sorted(plain),
        "apart": apart,
        "moved": moved,
    }


def four(folder):
    """Two rows of two columns, and a disaggregated layout."""
    square = join(ParallelConfig(sequence=2, timeout=900))

    def single():
        return load(folder, key_heads=2)

    batch = make_batch(single(), SEVERAL, frames=True, subagents=True)
    found = {
        "square": compare(square, single, batch, micro_batch_tokens=300),
        "place": (square.data.rank, square.sequence.rank),
    }
    divided = join(ParallelConfig(layout="disaggregated", generator_ranks=2, timeout=900))
    vlm = load(folder)
    learner = Learner(vlm, config(epochs=2), processes=divided)
    metrics = learner.update(make_batch(vlm, ONE_TURN))
    flat = torch.cat([p.detach().flatten() for p in vlm.model.parameters()]).numpy()
    found["split"] = (divided.plays, divided.trains, flat, metrics["optimizer_steps"])
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    words = ["where does the red circle blink"] * 4
    return build_mini(tmp_path_factory.mktemp("mini"), words, SHAPE)


@pytest.fixture(scope="module")
def pair(folder):
    return run(two, 2, folder)


@pytest.fixture(scope="module")
def quartet(folder):
    return run(four, 4, folder)


def same_work(found):
    for name in ("tokens", "samples", "packed", "frames"):
        assert found[name][0] == found[name][1], name


def test_data_parallel_gradients_equal_those_of_one_process(pair):
    for found in pair:
        assert found["data"]["gradients"] < 1e-6 < found["data"]["norm"]
        assert found["data"]["outputs"] < 1e-6 and found["data"]["metrics"] < 1e-6
        same_work(found["data"])


def test_data_parallel_losses_over_five_steps_equal_those_of_one_process(pair):
    for found in pair:
        many, one = found["steps"]
        assert many == pytest.approx(one, rel=1e-6, abs=1e-9)
        assert len(set(one)) == 5


CASES = ["one tree", "frames in some", "frozen vision", "recompute, offload", "lora", "reference"]


@pytest.mark.parametrize("case", CASES)
def test_data_parallel_equals_one_process(pair, case):
    for found in pair:
        assert found[case]["gradients"] < 1e-6


def test_the_divergence_is_that_of_one_process(pair):
    many, one = pair[0]["reference"]["kl"]
    assert many == pytest.approx(one, rel=1e-9) and one > 0


def test_each_process_holds_its_share_of_the_weights(pair):
    sizes = [found["shard"] for found in pair]
    assert sum(held for held, _ in sizes) == sizes[0][1]
    assert max(held for held, _ in sizes) < 0.6 * sizes[0][1]


@pytest.mark.parametrize("case", ["2 to 1", "1 to 2", "2 to 2"])
def test_a_checkpoint_is_taken_up_by_another_number_of_processes(pair, case):
    for found in pair:
        apart, same_rate = found["resumed"][case]
        assert apart < 1e-9 and same_rate


def test_a_step_is_skipped_by_all_processes_or_none(pair):
    assert [found["skipped"] for found in pair] == [(1.0, True)] * 2


SLICED = [
    "sequence",
    "sequence, frames only in the prompt",
    "sequence, split",
    "sequence, frozen vision",
    "sequence, gspo",
    "sequence, text",
    "sequence, videos",
]


@pytest.mark.parametrize("case", SLICED)
def test_a_shared_sequence_has_the_outputs_and_gradients_of_a_whole_one(pair, case):
    for found in pair:
        assert found[case]["gradients"] < 1e-5 < found[case]["norm"]
        assert found[case]["outputs"] < 1e-4 and found[case]["metrics"] < 1e-5


def test_a_shared_sequence_is_counted_once(pair):
    for found in pair:
        same_work(found["sequence"])


def test_heads_that_cannot_be_divided_are_an_error(pair):
    assert "3 processes cannot share 4 attention heads" in pair[0]["heads"]


def test_two_rows_of_two_equal_one_process(quartet):
    for found in quartet:
        assert found["square"]["gradients"] < 1e-5
        assert found["square"]["outputs"] < 1e-4
        same_work(found["square"])
    assert [found["place"] for found in quartet] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_in_the_split_layout_players_receive_what_trainers_learn(quartet, folder):
    split = [found["split"] for found in quartet]
    assert [(plays, trains) for plays, trains, *_ in split] == [(True, False)] * 2 + [
        (False, True)
    ] * 2
    for _, _, weights, steps in split:
        assert np.array_equal(weights, split[0][2])
        assert steps == split[-1][3]
    start_weights = torch.cat([p.detach().flatten() for p in load(folder).model.parameters()])
    assert not np.array_equal(split[0][2], start_weights.numpy())


@pytest.mark.parametrize("processes", ["many", "one"])
def test_steps_smaller_than_bfloat16_can_hold_add_up_in_fp32(pair, processes):
    found = pair[0]["low precision"][processes]
    assert found["dtypes"] == {"torch.float32"}
    assert found["rounded"]
    # ten steps of 1e-5: rounding to bfloat16 after each would have lost nearly all of them
    assert np.abs(found["moved"]).mean() > 3e-5


def _received(folder):
    """Frames that a player encodes anew once it has received other weights, as it counts them."""
    parallel = join(ParallelConfig(layout="disaggregated", timeout=900))
    vlm = load(folder)
    learner = Learner(vlm, config(), processes=parallel)
    images = make_batch(vlm, ONE_TURN, frames=True).trajectories[0].prompt_images
    counts = []
    for _ in range(2):
        for _ in range(2):
            vlm.features.encode(images)
            counts.append(vlm.features.encoded)
        learner.weights.publish()
    return counts


def test_what_a_player_receives_makes_the_features_of_older_weights_stale(folder):
    once, again, anew, after = run(_received, 2, folder)[0]
    assert 0 < once == again and 2 * once == anew == after


def test_low_precision_moves_the_same_way_on_one_process_and_several(pair):
    many, one = (pair[0]["low precision"][name]["moved"] for name in ("many", "one"))
    assert many @ one > 0.9 * np.linalg.norm(many) * np.linalg.norm(one)


def test_trees_are_divided_by_tokens_not_by_number(folder):
    vlm = load(folder)
    batch = make_batch(vlm, [[[60], [60]], [[2], [2]], [[2], [2]], [[2], [2]]])
    samples = [Sample(t, a) for t, a in zip(batch.trajectories, batch.advantages, strict=True)]
    trees = grow_trees(samples, 10_000)
    tokens = [sum(tree.tokens for tree in part) for part in share(trees, 2)]
    sizes = [len(part) for part in share(trees, 2)]
    assert sizes == [1, 3]
    assert sum(tokens) == sum(tree.tokens for tree in trees)
    assert max(tokens) < 0.7 * sum(tokens)


def test_all_processes_run_as_many_rounds_with_the_vision_tower_in_the_same_ones(folder):
    vlm = load(folder)
    batch = text_only(make_batch(vlm, SEVERAL, subagents=True))
    samples = [Sample(t, a) for t, a in zip(batch.trajectories, batch.advantages, strict=True)]
    trees = grow_trees(samples, 50)
    plans = [rounds(trees, 50, rank, 3) for rank in range(3)]
    assert len({len(plan) for plan in plans}) == 1
    assert len({tuple(turn.vision for turn in plan) for plan in plans}) == 1
    done = [id(tree) for plan in plans for turn in plan for tree in turn.trees or ()]
    assert sorted(done) == sorted(map(id, trees))


def test_slices_hold_every_token_once(folder):
    vlm = load(folder)
    batch = make_batch(vlm, SEVERAL, frames=True)
    samples = [Sample(t, a) for t, a in zip(batch.trajectories, batch.advantages, strict=True)]
    packed = pack(grow_trees(samples, 10_000), vlm, multiple=4)
    slices = [packed.slice(rank, 4, vlm.visual_ids) for rank in range(4)]
    assert packed.ids.shape[1] % 4 == 0
    assert np.array_equal(np.concatenate([one.ids for one in slices], axis=1), packed.ids)
    trained = np.concatenate([one.trained for one in slices])
    assert sorted(trained) == list(range(len(packed.target)))
    tokens = np.concatenate([one.image_tokens for one in slices])
    assert sorted(tokens) == list(range((packed.ids == vlm.image_pad_id).sum()))
    flat = packed.ids.flatten()[packed.source]
    for one in slices:
        assert np.array_equal(one.ids.flatten()[one.source], flat[one.trained])
    with pytest.raises(ValueError, match="equal slices"):
        packed.slice(0, 7, vlm.visual_ids)


def test_frames_are_split_evenly():
    sizes = [[s.stop - s.start for s in map(Group(0, 4).split, [n] * 4, range(4))] for n in (7, 2)]
    assert sizes == [[2, 2, 2, 1], [1, 1, 0, 0]]


def test_layouts_that_do_not_fit_the_processes_are_refused():
    assert layout(ParallelConfig(), 4) == [0, 1, 2, 3]
    assert layout(ParallelConfig(layout="disaggregated", generator_ranks=3), 4) == [3]
    with pytest.raises(ConfigError, match=r"sequence=3 does not divide the 4.*torchrun"):
        layout(ParallelConfig(sequence=3), 4)
    with pytest.raises(ConfigError, match="leaves none of 2 processes"):
        layout(ParallelConfig(layout="disaggregated", generator_ranks=2), 2)
    with pytest.raises(ConfigError, match="sequence=2 does not divide the 1"):
        join(ParallelConfig(sequence=2))
    with pytest.raises(ConfigError, match=r"one process shards nothing.*offload=false"):
        join(ParallelConfig(offload=True))
    assert layout(ParallelConfig(offload=True), 2) == [0, 1]


def test_one_process_needs_nobody():
    assert join(ParallelConfig()) == Processes()
    assert ALONE.leads and ALONE.total(2.5) == 2.5 and ALONE.gather("x") == ["x"]
    ALONE.barrier()


def test_new_adapters_change_nothing_and_only_they_are_trained(folder):
    vlm = load(folder)
    batch = make_batch(vlm, ONE_TURN)
    plain = gradients(Learner(load(folder), config()), batch)[2]
    adapted = lora.add(vlm, LoraConfig(rank=2))
    learner = Learner(adapted, config(kl_coefficient=0.1))
    assert all(".lora_" in name for name in learner.weights.parameters)
    assert np.array_equal(gradients(learner, batch)[2], plain)
    assert learner.update(batch)["kl"] == pytest.approx(0, abs=1e-7)
    assert learner.update(batch)["kl"] > 0


def test_adapters_are_saved_merged_as_a_standard_checkpoint(folder, tmp_path):
    vlm = lora.add(load(folder), LoraConfig(rank=2))
    learner = Learner(vlm, config(learning_rate=0.05))
    batch = make_batch(vlm, ONE_TURN)
    learner.update(batch)
    expected = gradients(learner, batch)[2]
    vlm.save(tmp_path)
    loaded = load(tmp_path)
    assert not lora.layers(loaded.model)
    outputs = gradients(Learner(loaded, config()), batch)[2]
    assert np.abs(outputs - expected).max() < 1e-4
    before = gradients(Learner(load(folder), config()), batch)[2]
    assert np.abs(outputs - before).max() > 1e-2


def test_all_processes_send_the_same_merged_adapters_by_the_usual_names(folder):
    one, other = run(adapters_sent, 2, folder)
    assert one["sums"] == other["sums"] and sorted(one["sums"]) == one["names"]
    assert one["moved"] == set(LoraConfig().targets)
    for found in (one, other):
        assert found["apart"] < 1e-6


def test_adapters_without_a_place_are_an_error(folder):
    with pytest.raises(ValueError, match="no linear layer"):
        lora.add(load(folder), LoraConfig(rank=2, targets=("nowhere",)))
