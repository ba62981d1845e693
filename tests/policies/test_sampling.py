"""Sampling: cached, batched, multi-turn drawing equals one plain forward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.model.mini import MiniConfig, build_mini
from agents.model.sampling import TransformersSampler
from agents.model.vlm import VisionLanguageModel
from agents.text.context import TokenContext, decode_with_offsets, token_roles
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
        np.testing.assert_allclose(behaviour[sampled], expected[sampled], atol=2e-5)
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
