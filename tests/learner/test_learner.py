"""The packed update against the plain one: one trajectory at a time, through the whole HF model."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.learning import (
    MANY_TURNS,
    ONE_TURN,
    SHAPE,
    config,
    make_batch,
    plain_logprobs,
    relative_difference,
)

from agents.algorithm.losses import LOSSES
from agents.config import AgentConfig
from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from train.common.errors import ConfigError
from train.config.learner import FaultConfig
from train.config.parallel import ParallelConfig
from train.config.run import TrainConfig
from train.config.sft import SFTConfig
from train.distributed.processes import ALONE, Processes
from train.learner.attention import block_mask, choose, tree_attention
from train.learner.learner import Learner
from train.learner.meter import Meter
from train.loop.checks import check
from train.packing.pack import pack, tree_mask
from train.packing.samples import Sample, grow_trees
from train.sft.sft import check as check_sft


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return build_mini(
        tmp_path_factory.mktemp("mini"), ["where does the red circle blink"] * 4, SHAPE
    )


@pytest.fixture
def vlm(checkpoint):
    return VisionLanguageModel.load(checkpoint)


def plain_gradients(vlm, batch, clip=0.2, kl=0.0, reference=None):
    """Gradients of the token-mean clipped loss, one trajectory at a time."""
    vlm.model.zero_grad(set_to_none=True)
    count = sum(int(one.loss_mask.sum()) for one in batch.trajectories)
    for one, advantages in zip(batch.trajectories, batch.advantages, strict=True):
        logprobs, _ = plain_logprobs(vlm, one)
        advantage = torch.from_numpy(advantages[one.loss_mask])
        ratio = (logprobs - torch.from_numpy(one.logprobs[one.loss_mask])).exp()
        loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
        if reference is not None:
            with torch.no_grad():
                d = plain_logprobs(reference, one)[0]
            loss = loss + kl * ((d - logprobs).exp() - (d - logprobs) - 1)
        (loss.sum() / count).backward()
    return {name: p.grad.clone() for name, p in vlm.model.named_parameters() if p.grad is not None}


def packed_gradients(learner, batch):
    """Of samples whose pi_prox is what was recorded, unless the loss has a weight for that."""
    learner.vlm.model.zero_grad(set_to_none=True)
    own = learner.loss.own_proximal
    samples = [
        Sample(t, a, proximal=None if own else t.logprobs)
        for t, a in zip(batch.trajectories, batch.advantages, strict=True)
    ]
    meter = Meter()
    learner.accumulate(samples, meter)
    named = learner.vlm.model.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}, meter.metrics()


CASES = {
    "one turn": {"turns_of_group": ONE_TURN},
    "many turns": {"turns_of_group": MANY_TURNS},
    "frames in the branches": {"turns_of_group": MANY_TURNS, "frames": True},
    "sub-agents": {"turns_of_group": MANY_TURNS, "subagents": True},
    "sub-agents and frames": {"turns_of_group": MANY_TURNS, "frames": True, "subagents": True},
    "videos": {"turns_of_group": MANY_TURNS, "frames": True, "subagents": True, "pairs": True},
}


@pytest.mark.parametrize("attention", ["split", "dense"])
@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_the_plain_computation(vlm, case, attention, monkeypatch):
    monkeypatch.setattr("train.learner.attention.SHORT", 0)
    batch = make_batch(vlm, **CASES[case])
    learner = Learner(vlm, config(attention=attention))
    packed, metrics = packed_gradients(learner, batch)
    plain = plain_gradients(vlm, batch)
    assert relative_difference(packed, plain) < 1e-5
    assert any("visual" in name and grad.any() for name, grad in packed.items())
    assert 0 < metrics["clip_fraction"] < 1


@pytest.mark.parametrize(
    "settings", [{"micro_batch_tokens": 1}, {"micro_batch_tokens": 90}, {"logit_chunk": 3}]
)
def test_sizes_that_bound_memory_change_no_gradient(vlm, settings):
    batch = make_batch(vlm, MANY_TURNS, frames=True, subagents=True)
    whole, _ = packed_gradients(Learner(vlm, config()), batch)
    parts, metrics = packed_gradients(Learner(vlm, config(**settings)), batch)
    assert relative_difference(parts, whole) < 1e-5
    assert metrics["micro_batches"] > 1


@pytest.mark.parametrize("short", [0, 10_000])
def test_grouped_query_attention_has_the_same_gradients(tmp_path, short, monkeypatch):
    monkeypatch.setattr("train.learner.attention.SHORT", short)
    build_mini(tmp_path, shape=SHAPE)
    vlm = VisionLanguageModel.load(tmp_path)
    text = copy.deepcopy(vlm.model.config)
    text.text_config.num_key_value_heads = 2
    torch.manual_seed(0)
    vlm = VisionLanguageModel(type(vlm.model)(text).eval(), vlm.tokenizer, vlm.image_processor)
    batch = make_batch(vlm, MANY_TURNS)
    packed, _ = packed_gradients(Learner(vlm, config()), batch)
    assert relative_difference(packed, plain_gradients(vlm, batch)) < 1e-5


def test_k3_divergence_from_the_reference_has_the_plain_gradient(vlm, checkpoint):
    reference = VisionLanguageModel.load(checkpoint)
    with torch.no_grad():
        for weight in vlm.model.parameters():
            weight.mul_(1.05)
    batch = make_batch(vlm, MANY_TURNS)
    learner = Learner(vlm, config(kl_coefficient=0.3), reference)
    packed, metrics = packed_gradients(learner, batch)
    plain = plain_gradients(vlm, batch, kl=0.3, reference=reference)
    assert relative_difference(packed, plain) < 1e-5
    assert metrics["kl"] > 0
    assert all(p.grad is None for p in reference.model.parameters())


@pytest.mark.parametrize(("epochs", "passes"), [(1, 1), (3, 1)])
def test_the_reference_is_computed_once_for_all_epochs(
    vlm, checkpoint, epochs, passes, monkeypatch
):
    reference = VisionLanguageModel.load(checkpoint)
    with torch.no_grad():
        for weight in vlm.model.parameters():
            weight.mul_(1.05)
    learner = Learner(vlm, config(kl_coefficient=0.3, epochs=epochs, learning_rate=1e-3), reference)
    counted, forward = [], learner.reference.forward
    monkeypatch.setattr(
        learner.reference, "forward", lambda *given: (counted.append(1), forward(*given))[1]
    )
    metrics = learner.update(make_batch(vlm, ONE_TURN))
    assert len(counted) == passes and metrics["optimizer_steps"] == epochs
    assert metrics["kl"] > 0


def test_a_known_reference_has_the_gradient_of_a_computed_one(vlm, checkpoint):
    reference = VisionLanguageModel.load(checkpoint)
    with torch.no_grad():
        for weight in vlm.model.parameters():
            weight.mul_(1.05)
    learner = Learner(vlm, config(kl_coefficient=0.3), reference)
    batch = make_batch(vlm, MANY_TURNS)
    samples = [Sample(*pair) for pair in zip(batch.trajectories, batch.advantages, strict=True)]

    def gradient(given):
        vlm.model.zero_grad(set_to_none=True)
        learner.accumulate(given, Meter())
        named = vlm.model.named_parameters()
        return {name: p.grad.clone() for name, p in named if p.grad is not None}

    known = learner._with_reference(samples)
    assert relative_difference(gradient(known), gradient(samples)) < 1e-6
    shifted = [replace(one, reference=one.reference + 0.5) for one in known]
    assert relative_difference(gradient(shifted), gradient(samples)) > 1e-2


def test_metrics_are_those_of_the_plain_computation(vlm):
    batch = make_batch(vlm, ONE_TURN)
    _, metrics = packed_gradients(Learner(vlm, config()), batch)
    with torch.no_grad():
        pairs = [plain_logprobs(vlm, one) for one in batch.trajectories]
    behaviour = torch.cat(
        [torch.from_numpy(one.logprobs[one.loss_mask]) for one in batch.trajectories]
    )
    difference = torch.cat([pair[0] for pair in pairs]) - behaviour
    assert metrics["entropy"] == pytest.approx(
        torch.cat([p[1] for p in pairs]).mean().item(), rel=1e-5
    )
    assert metrics["ratio"] == pytest.approx(difference.exp().mean().item(), rel=1e-5)
    assert metrics["behaviour_kl"] == pytest.approx(-difference.mean().item(), rel=1e-4)
    assert metrics["behaviour_mismatch"] == pytest.approx(difference.abs().mean().item(), rel=1e-4)
    assert metrics["behaviour_mismatch_max"] == pytest.approx(
        difference.abs().max().item(), rel=1e-4
    )
    assert metrics["trained_tokens"] == 28


def test_decoupled_weighs_each_token_by_what_it_was_sampled_with(vlm):
    """In a single step pi_prox is the policy: nothing is clipped, weights over the cap drop out."""
    batch = make_batch(vlm, MANY_TURNS)
    with torch.no_grad():
        moved = [
            plain_logprobs(vlm, one)[0] - torch.from_numpy(one.logprobs[one.loss_mask])
            for one in batch.trajectories
        ]
    ratios = torch.cat(moved).exp().sort().values
    half = len(ratios) // 2
    cap = ratios[half - 1 : half + 1].mean().item()  # half of the tokens weigh more
    learner = Learner(vlm, config(loss="decoupled", behaviour_cap=cap))
    packed, metrics = packed_gradients(learner, batch)
    vlm.model.zero_grad(set_to_none=True)
    count = sum(int(one.loss_mask.sum()) for one in batch.trajectories)
    for one, advantages in zip(batch.trajectories, batch.advantages, strict=True):
        logprobs, _ = plain_logprobs(vlm, one)
        weight = (logprobs.detach() - torch.from_numpy(one.logprobs[one.loss_mask])).exp()
        weight = weight * (weight <= cap)
        (
            -(logprobs * weight * torch.from_numpy(advantages[one.loss_mask])).sum() / count
        ).backward()
    plain = {n: p.grad for n, p in vlm.model.named_parameters() if p.grad is not None}
    assert relative_difference(packed, plain) < 1e-5
    assert metrics["clip_fraction"] == 0 and metrics["behaviour_dropped"] == half / len(ratios)


@pytest.mark.parametrize("micro_batch_tokens", [1, 90, 16384])
@pytest.mark.parametrize("subagents", [False, True])
def test_gspo_has_the_plain_gradient_however_groups_are_cut(vlm, micro_batch_tokens, subagents):
    """A trajectory with all its turns is one sequence and is never divided."""
    batch = make_batch(vlm, MANY_TURNS, subagents=subagents)
    for i, one in enumerate(batch.trajectories):
        batch.advantages[i] = np.full(len(one.branch_ids), (-1) ** i * (1 + i), dtype=np.float32)
    settings = {"loss": "gspo", "aggregation": "sequence_mean", "clip_low": 0.1, "clip_high": 0.1}
    settings["micro_batch_tokens"] = micro_batch_tokens
    learner = Learner(vlm, config(**settings))
    packed, metrics = packed_gradients(learner, batch)
    vlm.model.zero_grad(set_to_none=True)
    for one, advantages in zip(batch.trajectories, batch.advantages, strict=True):
        logprobs, _ = plain_logprobs(vlm, one)
        s = (logprobs - torch.from_numpy(one.logprobs[one.loss_mask])).mean().exp()
        a = float(advantages[0])
        (-torch.minimum(s * a, s.clamp(0.9, 1.1) * a) / len(batch.trajectories)).backward()
    named = vlm.model.named_parameters()
    plain = {n: p.grad if p.grad is not None else torch.zeros_like(p) for n, p in named}
    assert relative_difference(packed, {n: plain[n] for n in packed}) < 1e-5
    assert 0 < metrics["clip_fraction"] < 1


def test_tis_weighs_by_the_truncated_behaviour_of_the_sampler(vlm):
    batch = make_batch(vlm, ONE_TURN)
    with torch.no_grad():
        weights = torch.cat(
            [
                (plain_logprobs(vlm, one)[0] - torch.from_numpy(one.logprobs[one.loss_mask])).exp()
                for one in batch.trajectories
            ]
        )
    cap = float(weights.median())
    learner = Learner(vlm, config(loss="tis", behaviour_cap=cap))
    _, metrics = packed_gradients(learner, batch)
    assert metrics["ratio"] == pytest.approx(1, abs=1e-6)
    assert metrics["behaviour_weight"] == pytest.approx(
        float(weights.clamp(max=cap).mean()), rel=1e-4
    )
    assert 0 < metrics["behaviour_truncated"] < 1


def test_dr_grpo_divides_by_sequences_times_the_configured_limit(vlm):
    batch = make_batch(vlm, MANY_TURNS, subagents=True)
    settings = {"aggregation": "dr_grpo", "length_limit": 37}
    packed, _ = packed_gradients(Learner(vlm, config(**settings)), batch)
    tokens = sum(int(one.loss_mask.sum()) for one in batch.trajectories)
    of_the_sum = tokens / (len(batch.trajectories) * 37)
    plain = {name: grad * of_the_sum for name, grad in plain_gradients(vlm, batch).items()}
    assert relative_difference(packed, plain) < 1e-5


def test_cispo_truncates_at_the_configured_cap(vlm):
    batch = make_batch(vlm, ONE_TURN)
    with torch.no_grad():
        pairs = [
            (plain_logprobs(vlm, one)[0], torch.from_numpy(one.logprobs[one.loss_mask]))
            for one in batch.trajectories
        ]
    ratios = torch.cat([(logprobs - behaviour).exp() for logprobs, behaviour in pairs])
    cap = float(ratios.median())
    learner = Learner(vlm, config(loss="cispo", ratio_cap=cap))
    _, metrics = packed_gradients(learner, batch)
    assert metrics["clip_fraction"] == pytest.approx(float((ratios > cap).float().mean()), abs=0.04)
    assert metrics["clip_fraction"] > 0.3


def test_a_divergence_in_the_reward_is_a_sum_and_no_term_of_the_loss(vlm, checkpoint):
    reference = VisionLanguageModel.load(checkpoint)
    with torch.no_grad():
        for weight in reference.model.parameters():
            weight.mul_(1.05)
    batch = make_batch(vlm, MANY_TURNS, subagents=True)
    settings = {"kl_coefficient": 0.3, "kl_in": "reward", "micro_batch_tokens": 90}
    learner = Learner(vlm, config(**settings), reference)
    with torch.no_grad():
        plain = []
        for one in batch.trajectories:
            d = plain_logprobs(reference, one)[0] - torch.from_numpy(one.logprobs[one.loss_mask])
            plain.append(float(-d.sum()))
    assert learner.divergence(batch.trajectories) == pytest.approx(plain, rel=1e-4, abs=1e-6)
    packed, metrics = packed_gradients(learner, batch)
    without, _ = packed_gradients(Learner(vlm, config()), batch)
    assert relative_difference(packed, without) < 1e-6
    assert "kl" not in metrics


def test_a_divergence_needs_a_reference(vlm):
    with pytest.raises(ValueError, match="kl_coefficient"):
        Learner(vlm, config()).divergence(make_batch(vlm, ONE_TURN).trajectories)


def on_policy(vlm, batch):
    """The batch with the log-probabilities of `vlm` itself as behaviour."""
    with torch.no_grad():
        for i, one in enumerate(batch.trajectories):
            recorded = np.zeros(len(one.branch_ids), dtype=np.float32)
            recorded[one.loss_mask] = plain_logprobs(vlm, one)[0].numpy()
            batch.trajectories[i] = replace(one, logprobs=recorded)
    return batch


@pytest.mark.parametrize("loss", ["clipped", "decoupled"])
def test_on_policy_the_ratio_is_one_and_nothing_is_clipped(vlm, loss):
    batch = on_policy(vlm, make_batch(vlm, MANY_TURNS, frames=True, subagents=True))
    metrics = Learner(vlm, config(loss=loss)).update(batch)
    assert metrics["ratio"] == pytest.approx(1, abs=1e-5)
    assert metrics["behaviour_mismatch_max"] < 1e-4
    assert metrics["clip_fraction"] == 0


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"likelihood"}))
def test_nothing_is_clipped_before_the_weights_have_moved(checkpoint, loss, dtype, steps):
    """By bounds below the rounding of bf16, and of a record that is far from the policy's own."""
    vlm = VisionLanguageModel.load(checkpoint, dtype)
    batch = make_batch(vlm, MANY_TURNS, frames=True)
    bounds = {"clip_low": 1e-6, "clip_high": 1e-6, "ratio_cap": 1 + 1e-6}
    settings = config(loss=loss, epochs=steps, micro_batch_tokens=90, learning_rate=1e-30, **bounds)
    metrics = Learner(vlm, settings).update(batch)
    assert metrics["optimizer_steps"] == steps
    assert (metrics["clip_fraction"], metrics["ratio"]) == (0, 1)


def test_after_a_skipped_step_the_policy_is_still_its_own_proximal(vlm, monkeypatch):
    learner = Learner(vlm, config(minibatches=2))
    monkeypatch.setattr(learner.guard, "fault", lambda norm: "" if learner.guard.skipped else "x")
    seen, original = [], learner.loss

    def spy(inputs):
        seen.append((inputs.logprobs - inputs.proximal).detach().abs().max().item())
        return original(inputs)

    learner.loss = replace(original, function=spy)
    learner.update(make_batch(vlm, ONE_TURN))
    assert seen == [0, 0]


def test_several_steps_measure_the_ratio_from_the_start_of_the_update(vlm):
    """Behaviour is older and far off here: only a computed pi_prox has ratios of 1 at first."""
    batch = make_batch(vlm, ONE_TURN)
    seen = []
    learner = Learner(vlm, config(loss="decoupled", epochs=2, staleness=1))
    original = learner.loss

    def spy(inputs):
        seen.append((inputs.logprobs - inputs.proximal).detach().abs().max().item())
        return original(inputs)

    learner.loss = replace(original, function=spy)
    metrics = learner.update(batch, version=1)
    assert metrics["optimizer_steps"] == 2
    first, second = seen
    assert first < 1e-5 < 1e-3 < second


def test_minibatches_keep_groups_whole_and_take_one_step_each(vlm, monkeypatch):
    batch = make_batch(vlm, [*ONE_TURN, [[2], [3]]])
    learner = Learner(vlm, config(minibatches=3))
    sizes = []
    monkeypatch.setattr(learner, "optimize", lambda samples, meter: sizes.append(len(samples)))
    assert learner.update(batch)["optimizer_steps"] == 3
    assert sorted(sizes) == [2, 2, 4]


def test_sequences_without_advantage_are_averaged_over_but_not_computed(vlm):
    batch = make_batch(vlm, ONE_TURN)
    for i, group in enumerate(batch.groups):
        if group == 1:
            batch.advantages[i][:] = 0
    packed, metrics = packed_gradients(Learner(vlm, config()), batch)
    assert relative_difference(packed, plain_gradients(vlm, batch)) < 1e-5
    assert (metrics["samples"], metrics["samples_without_advantage"]) == (6, 2)


def test_the_vision_tower_runs_once_for_the_distinct_images_of_a_group(vlm, monkeypatch):
    batch = make_batch(vlm, [[[5], [3], [4], [2, 6]]], frames=True)
    calls = []
    encode = vlm.encode_images
    monkeypatch.setattr(
        vlm, "encode_images", lambda images: calls.append(len(images)) or encode(images)
    )
    Learner(vlm, config()).update(batch)
    assert calls == [
        3
    ]  # two in the prompt, one new one in the last branch, which also shows the first again


def test_a_frozen_vision_tower_does_not_move(vlm):
    before = {n: p.clone() for n, p in vlm.model.named_parameters()}
    Learner(vlm, config(freeze_vision=True)).update(make_batch(vlm, ONE_TURN))
    moved = {n for n, p in vlm.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert not any("visual" in name for name in moved)


def test_an_update_raises_the_probability_of_what_had_an_advantage(vlm):
    batch = on_policy(vlm, make_batch(vlm, ONE_TURN))
    for i, one in enumerate(batch.trajectories):
        batch.advantages[i] = np.full(len(one.branch_ids), 1.0 if i % 2 else -1.0, dtype=np.float32)
    Learner(vlm, config()).update(batch)
    with torch.no_grad():
        gain = [
            float(
                (plain_logprobs(vlm, one)[0] - torch.from_numpy(one.logprobs[one.loss_mask])).mean()
            )
            for one in batch.trajectories
        ]
    assert min(gain[1::2]) > 0 > max(gain[0::2])


def test_the_gradient_is_clipped_and_the_rate_warms_up(vlm):
    learner = Learner(vlm, config(warmup_steps=3, max_grad_norm=0.01))
    batch = make_batch(vlm, ONE_TURN)
    rates, norms = [learner.optimizer.param_groups[0]["lr"]], []

    def seen(*_):
        gradients = [p.grad for p in learner.parameters if p.grad is not None]
        norms.append(sum(float(gradient.square().sum()) for gradient in gradients) ** 0.5)

    learner.optimizer.register_step_pre_hook(seen)
    for _ in range(4):
        learner.update(batch)
        rates.append(learner.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])
    assert norms == pytest.approx([0.01] * 4, rel=1e-3)


def test_no_gradient_is_held_until_the_next_update(vlm):
    learner = Learner(vlm, config())
    assert learner.update(make_batch(vlm, ONE_TURN))["grad_norm"] > 0
    assert all(p.grad is None for p in vlm.model.parameters())


def test_processes_that_cannot_share_the_heads_are_refused_as_the_learner_is_made(vlm):
    three = Processes(config=ParallelConfig(sequence=3))
    with pytest.raises(ConfigError, match="3 processes cannot share 4 attention heads: set para"):
        Learner(vlm, config(), processes=three)


def test_defect_06_a_trajectory_that_ends_on_tool_tokens_keeps_its_gradient(vlm):
    batch = make_batch(vlm, [[[4], [5]]])
    one = batch.trajectories[0]
    longer = replace(
        one,
        branch_ids=np.append(one.branch_ids, [20, 21, 22]),
        loss_mask=np.append(one.loss_mask, [False] * 3),
        logprobs=np.append(one.logprobs, np.zeros(3, np.float32)),
        roles=np.append(one.roles, np.zeros(3, np.int8)),
    )
    learner = Learner(vlm, config())
    expected, _ = packed_gradients(learner, batch)
    batch.trajectories[0] = longer
    batch.advantages[0] = np.append(batch.advantages[0], np.zeros(3, np.float32))
    assert relative_difference(packed_gradients(learner, batch)[0], expected) < 1e-6


def test_a_sampled_vision_token_is_an_error(vlm):
    batch = make_batch(vlm, [[[4], [5]]])
    batch.trajectories[0].branch_ids[1] = vlm.vision_start_id
    with pytest.raises(ValueError, match="vision token"):
        Learner(vlm, config()).update(batch)


def test_a_gradient_that_is_not_finite_leaves_the_weights(vlm):
    batch = make_batch(vlm, [[[4], [5]]])
    batch.advantages[0][0] = np.inf
    before = [p.clone() for p in vlm.model.parameters()]
    with pytest.raises(FloatingPointError, match="nothing was updated"):
        Learner(vlm, config(faults=FaultConfig(in_a_row=1))).update(batch)
    assert all(torch.equal(p, b) for p, b in zip(vlm.model.parameters(), before, strict=True))


def test_a_batch_without_trained_tokens_takes_no_step(vlm):
    batch = make_batch(vlm, [[[4], [5]]])
    batch.trajectories[:] = [
        replace(t, loss_mask=np.zeros_like(t.loss_mask)) for t in batch.trajectories
    ]
    assert Learner(vlm, config()).update(batch)["optimizer_steps"] == 0


def test_settings_that_cannot_train_are_refused(vlm):
    with pytest.raises(ValueError, match="greedy"):
        Learner(vlm, config(temperature=0.0))
    with pytest.raises(ValueError, match="reference"):
        Learner(vlm, config(kl_coefficient=0.1))
    with pytest.raises(ValueError, match="needs cuda"):
        Learner(vlm, config(attention="flex"))


def test_float16_is_refused_before_and_after_it_is_loaded(checkpoint):
    with pytest.raises(ConfigError, match="dtype=bfloat16"):
        Learner(VisionLanguageModel.load(checkpoint, "float16"), config())
    cheap = TrainConfig(agent=AgentConfig(checkpoint="nowhere", dtype="float16"))
    with pytest.raises(ConfigError, match="dtype=bfloat16"):
        check(cheap, ALONE, None)
    with pytest.raises(ConfigError, match="dtype=bfloat16"):
        check_sft(SFTConfig(agent=AgentConfig(dtype="half")), ALONE)


def test_attention_is_chosen_by_device():
    modes = [choose("auto", torch.device(kind)) for kind in ("cpu", "cuda", "mps")]
    assert modes == ["split", "flex", "dense"]


def test_the_block_mask_of_flex_attention_is_the_dense_mask():
    segments = np.array([[0] * 5 + [1] * 3 + [2] * 4 + [-1] * 2])
    allowed = block_mask(torch.from_numpy(segments)).mask_mod
    here = torch.arange(14)
    dense = [[bool(allowed(torch.tensor(0), torch.tensor(0), q, k)) for k in here] for q in here]
    assert np.array_equal(dense, tree_mask(segments)[0, 0])


def test_attention_is_put_back_after_an_error(vlm):
    batch = make_batch(vlm, ONE_TURN)
    samples = [Sample(t, a) for t, a in zip(batch.trajectories, batch.advantages, strict=True)]
    packed = pack(grow_trees(samples, 10_000), vlm)
    before = vlm.language_model.config._attn_implementation
    with (
        pytest.raises(RuntimeError, match="stop"),
        tree_attention(vlm.language_model, packed, "split", vlm.device),
    ):
        raise RuntimeError("stop")
    assert vlm.language_model.config._attn_implementation == before == "sdpa"
