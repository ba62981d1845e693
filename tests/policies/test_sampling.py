"""Sampling: cached, batched, multi-turn drawing equals one plain forward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.config import AgentConfig
from agents.model.agent import TransformersAgent
from agents.model.mini import MiniConfig, build_mini
from agents.model.sampling import TransformersSampler, alike
from agents.model.vlm import VisionLanguageModel
from agents.text.context import TokenContext, decode_with_offsets, token_roles
from agents.text.conversation import Reading, RowState
from paravt_env.protocol import Role, parse

SHAPE = MiniConfig(32, 2, 2, 64, 32, 1, 2, 64, vocabulary=300)


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
    folder = build_mini(tmp_path_factory.mktemp("mini"), ["a red scene"] * 3, SHAPE)
    return VisionLanguageModel.load(folder)


def conversation(vlm: VisionLanguageModel, frames: np.ndarray, text: str) -> TokenContext:
    context = TokenContext(vlm)
    for i, frame in enumerate(frames):
        context.append_text(f"{i} ", Role.prompt)
        context.append_image(frame, Role.prompt)
    context.append_text(text, Role.prompt)
    context.close_prompt()
    return context


def plain_logprobs(
    vlm: VisionLanguageModel, context: TokenContext, temperature: float
) -> np.ndarray:
    """Log-probabilities of every token after the first, by one forward pass of the plain model."""
    ids = np.array(context.ids)
    grids = [vlm.image_grid(*image.shape[:2]) for image in context.images]
    positions = torch.from_numpy(vlm.rope_positions(ids, grids)[0])[:, None]
    with torch.no_grad():
        features = torch.cat(vlm.encode_images(context.images))
        logits = vlm.logits(vlm.forward(torch.from_numpy(ids)[None], positions, None, features))[0]
    logits[:, list(vlm.forbidden_ids)] = -torch.inf
    logprobs = torch.log_softmax(logits / temperature, -1)
    return logprobs[:-1].gather(1, torch.from_numpy(ids[1:])[:, None])[:, 0].numpy()


def test_two_turns_of_unequal_rows_equal_a_plain_forward_pass(vlm: VisionLanguageModel) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (4, 64, 64, 3), dtype=np.uint8)
    contexts = [
        conversation(vlm, frames[:1], "short"),
        conversation(vlm, frames[:3], "a longer question?"),
        conversation(vlm, frames[:1], "short"),
    ]
    sampler = TransformersSampler(vlm, seed=3)
    first, session = sampler.resume(None, contexts, [5, 9, 2], temperature=0.7)
    assert [len(drawn.ids) <= limit for drawn, limit in zip(first, [5, 9, 2], strict=True)] == [
        True
    ] * 3
    for context, drawn in zip(contexts, first, strict=True):
        context.append(drawn.ids, int(Role.text), drawn.logprobs)
    contexts[1].append_text("evidence ", Role.response)
    contexts[1].append_image(frames[3], Role.response)
    contexts[0].append_text("no evidence", Role.response)
    again = [contexts[1], contexts[0]]
    second, _ = sampler.resume(session, again, [6, 3], temperature=0.7)
    for context, drawn in zip(again, second, strict=True):
        context.append(drawn.ids, int(Role.text), drawn.logprobs)
    for context in contexts:
        trajectory = context.freeze()
        behaviour = np.concatenate([np.zeros(len(trajectory.prompt_ids)), trajectory.logprobs])[1:]
        sampled = np.concatenate(
            [np.zeros(len(trajectory.prompt_ids), bool), trajectory.loss_mask]
        )[1:]
        expected = plain_logprobs(vlm, context, 0.7)
        np.testing.assert_allclose(behaviour[sampled], expected[sampled], atol=2e-6)
    assert len(contexts[1].freeze().branch_images) == 1


def test_a_group_encodes_each_frame_once_and_new_weights_forget(vlm: VisionLanguageModel) -> None:
    frames = np.random.default_rng(1).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    sampler = TransformersSampler(vlm)
    for _ in range(2):
        group = [conversation(vlm, frames, "q") for _ in range(4)]
        sampler.resume(None, group, [2] * 4, temperature=1.0)
    assert (sampler.stats.frames_encoded, sampler.stats.frames_reused) == (3, 3)
    sampler.clear()
    sampler.resume(None, [conversation(vlm, frames, "q")], [1], temperature=1.0)
    assert sampler.stats.frames_encoded == 6


def rows(vlm: VisionLanguageModel) -> list[TokenContext]:
    """Two groups and a conversation of its own."""
    frames = np.random.default_rng(2).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    one, other = (frames[:1], "one"), (frames[1:], "another question")
    return [conversation(vlm, *given) for given in (one, other, one, other, (frames[:0], "x"), one)]


def test_a_row_draws_the_same_alone_and_in_a_batch(vlm: VisionLanguageModel) -> None:
    limits = [9, 3, 12, 20, 2, 7]
    sampler = TransformersSampler(vlm, seed=5)
    together, _ = sampler.resume(None, rows(vlm), limits, temperature=1.5)
    for row in (0, 1, 4):  # the first of its prompt: alone, a row is that
        sampler = TransformersSampler(vlm, seed=5)
        (alone,), _ = sampler.resume(None, [rows(vlm)[row]], [limits[row]], temperature=1.5)
        assert alone.ids == together[row].ids
        np.testing.assert_allclose(alone.logprobs, together[row].logprobs, atol=2e-6)
    assert len({tuple(together[row].ids[:7]) for row in (0, 2, 5)}) == 3


def test_a_second_turn_draws_the_same_whoever_is_still_there(vlm: VisionLanguageModel) -> None:
    def second(others: bool) -> list[int]:
        sampler, contexts = TransformersSampler(vlm, seed=5), rows(vlm)
        drawn, session = sampler.resume(None, contexts, [4, 9, 2, 5, 3, 8], temperature=1.5)
        for context, one in zip(contexts, drawn, strict=True):
            context.append(one.ids, int(Role.text), one.logprobs)
        again = [contexts[5], contexts[1], contexts[3]] if others else [contexts[3]]
        drawn, _ = sampler.resume(session, again, [6] * len(again), temperature=1.5)
        return drawn[-1].ids

    assert second(others=True) == second(others=False)


def test_seeds_and_calls_draw_anew(vlm: VisionLanguageModel) -> None:
    def drawn(sampler: TransformersSampler) -> list[list[int]]:
        return [one.ids for one in sampler.resume(None, rows(vlm), [8] * 6, temperature=1.5)[0]]

    first, other = TransformersSampler(vlm, seed=5), TransformersSampler(vlm, seed=6)
    once = drawn(first)
    assert drawn(TransformersSampler(vlm, seed=5)) == once
    assert drawn(first) != once and drawn(other) != once


def test_a_row_that_is_done_is_not_computed_again(
    vlm: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    forward = vlm.forward

    def counted(ids: torch.Tensor, *given: object, **named: object) -> torch.Tensor:
        computed.append(tuple(ids.shape))
        return forward(ids, *given, **named)

    monkeypatch.setattr(vlm, "forward", counted)
    sampler = TransformersSampler(vlm)
    sampler.stop_ids = frozenset()
    sampler.resume(None, rows(vlm), [1, 2, 5, 2, 3, 1], temperature=1.0)
    # prompts first, whose last tokens are the first step; then rows that have a token to draw
    assert [shape for shape in computed if shape[1] == 1] == [
        (6, 1),
        (4, 1),
        (2, 1),
        (1, 1),
        (1, 1),
    ]


def test_readings_of_a_row_do_not_depend_on_other_rows(vlm: VisionLanguageModel) -> None:
    agent = TransformersAgent(vlm, AgentConfig(temperature=1.5))

    def read(*asked: tuple[int, int]) -> list[list[int]]:
        readings = []
        for row, call in asked:
            main = agent._rows.setdefault(row, RowState(TokenContext(vlm)))
            assert main.context is not None
            main.context.stream = 100 + row
            context = conversation(vlm, np.zeros((1, 64, 64, 3), np.uint8), "what?")
            readings.append(Reading(row, call, {}, context, 8))
        return [one.ids for one in agent.read(readings)]

    first, second, other = read((0, 0), (0, 1), (1, 0))
    assert read((1, 0)) == [other] and read((0, 1)) == [second]
    assert len({tuple(first), tuple(second), tuple(other)}) == 3


def test_logits_that_are_not_finite_are_an_error(
    vlm: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = vlm.logits
    monkeypatch.setattr(vlm, "logits", lambda hidden: logits(hidden) * torch.nan)
    for temperature in (0.0, 1.0):
        with pytest.raises(FloatingPointError, match="diverged"):
            TransformersSampler(vlm).resume(None, rows(vlm), [4] * 6, temperature)


def test_a_completion_of_no_tokens_is_refused(vlm: VisionLanguageModel) -> None:
    with pytest.raises(ValueError, match="a completion of 0 tokens"):
        TransformersSampler(vlm).resume(None, rows(vlm)[:2], [4, 0], 1.0)


def test_prompts_are_computed_in_parts_of_similar_length() -> None:
    assert alike([5, 0, 90, 6, 100, 1], 200) == [[4, 2], [3, 0, 5]]
    assert alike([5, 4], 3) == [[0], [1]]


def test_vision_tokens_are_never_sampled(vlm: VisionLanguageModel) -> None:
    frames = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    group = [conversation(vlm, frames, "q") for _ in range(64)]
    drawn, _ = TransformersSampler(vlm).resume(None, group, [16] * 64, temperature=5.0)
    assert not {i for row in drawn for i in row.ids} & set(vlm.forbidden_ids)


def test_greedy_rows_of_a_group_agree(vlm: VisionLanguageModel) -> None:
    frames = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    group = [conversation(vlm, frames, "q") for _ in range(3)]
    drawn, _ = TransformersSampler(vlm).resume(None, group, [8] * 3, temperature=0.0)
    assert drawn[0].ids == drawn[1].ids == drawn[2].ids


def test_offsets_and_roles_follow_the_text_through_multi_byte_characters(
    vlm: VisionLanguageModel,
) -> None:
    text = "<think>\nséen 文</think><answer>B</answer>"
    ids = vlm.tokenizer(text, add_special_tokens=False)["input_ids"]
    decoded, ends = decode_with_offsets(vlm.tokenizer, ids)
    assert decoded == text and ends[-1] == len(text) and ends == sorted(ends)
    roles = token_roles(parse(text), ends)
    tokens = vlm.tokenizer.convert_ids_to_tokens(ids)
    assert roles[tokens.index("<think>")] is Role.tag
    assert [r for t, r in zip(tokens, roles, strict=True) if t == "B"] == [Role.answer]
    assert decode_with_offsets(vlm.tokenizer, ids[:-1])[0] == text[: ends[-2]]


def test_bytes_that_are_no_text_do_not_raise(vlm: VisionLanguageModel) -> None:
    everything = [i for i in range(len(vlm.tokenizer)) if i not in vlm.forbidden_ids][::-1]
    text, ends = decode_with_offsets(vlm.tokenizer, everything)
    assert len(ends) == len(everything) and ends[-1] <= len(text)
    assert len(token_roles(parse(text), ends)) == len(ends)


def test_an_id_beyond_the_tokenizer_is_a_replacement_character(vlm: VisionLanguageModel) -> None:
    ids = vlm.tokenizer("a")["input_ids"]
    text, ends = decode_with_offsets(vlm.tokenizer, [*ids, len(vlm.tokenizer) + 7, *ids])
    assert (text, ends) == ("a\N{REPLACEMENT CHARACTER}a", [1, 2, 3])
