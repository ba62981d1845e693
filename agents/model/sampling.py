"""Batched sampling from a checkpoint, with keys and values kept across the turns of a rollout.

Identical prompts (the rollouts of a group) are computed once, and their rows attend to the same
keys and values (`agents/model/cached_attention.py`). A row that is done leaves the batch. Which
tokens a row draws is a matter of its own stream (`agents/model/draws.py`), not of the batch. An
image is encoded once per version of the weights. Tests: `pytest tests/policies/test_sampling.py`.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from agents.base import AgentStats, image_key, image_size
from agents.model.cached_attention import Pass, PromptPass, RowPass, cached
from agents.model.draws import inverse_draw, stream_of, uniforms
from agents.model.kv_cache import GroupCache
from agents.model.vlm import VisionLanguageModel
from agents.text.context import TokenContext, stop_ids
from agents.text.conversation import Sampled

PREFILL_TOKENS = 8192
"""Tokens of prompts, padding included, that go through the decoder at once."""


@dataclass
class Session:
    """A batch of conversations with their cache.

    Attributes:
        contexts: One conversation a row, in the order of the cache, which changes.
        cache: Keys and values.
    """

    contexts: list[TokenContext]
    cache: GroupCache

    def narrow(self, going: Sequence[int]) -> list[int]:
        """Let only these rows be computed; returns for each place its row's place before."""
        order = self.cache.narrow(going)
        self.contexts = [self.contexts[i] for i in order]
        return order

    def keep(self, contexts: Sequence[TokenContext]) -> None:
        """Let all conversations but these go, and take up all of these again."""
        self.cache.wake()
        kept = {id(context) for context in contexts}
        going = [place for place, one in enumerate(self.contexts) if id(one) in kept]
        self.narrow(going)
        self.contexts = self.contexts[: len(going)]
        self.cache.forget_rest()


class TransformersSampler:
    """Draws tokens for batches of conversations.

    Args:
        vlm: The checkpoint.
        seed: Seed of the sampling generator.
    """

    def __init__(self, vlm: VisionLanguageModel, seed: int = 0) -> None:
        self.vlm = vlm
        self.generator = torch.Generator(device=vlm.device)
        self.generator.manual_seed(seed)
        self.stats = AgentStats()
        self.stop_ids = stop_ids(vlm)
        self._padding = next(i for i in itertools.count() if i not in vlm.visual_ids)
        self._forbidden = torch.tensor(vlm.forbidden_ids, device=vlm.device)

    def clear(self) -> None:
        """Forget everything computed by older weights."""
        self.vlm.features.weights_changed()

    def _timed(self, stage: str, since: float) -> None:
        seconds = self.stats.seconds
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - since

    def image_features(self, images: Sequence[np.ndarray]) -> torch.Tensor | None:
        """Features (N, hidden * (1 + levels)) of images in order, each encoded at most once."""
        if not images:
            return None
        since, cache = time.perf_counter(), self.vlm.features
        encoded, reused = cache.encoded, cache.reused
        features = cache.encode(images)
        self.stats.frames_encoded += cache.encoded - encoded
        self.stats.frames_reused += cache.reused - reused
        self._timed("encode", since)
        return torch.cat(features)

    def _identities(self, contexts: Sequence[TokenContext]) -> list[tuple[bytes, ...]]:
        """Equal for equal conversations; those without a stream get theirs."""
        identities = [
            (np.array(context.ids).tobytes(), *map(image_key, context.images))
            for context in contexts
        ]
        if any(context.stream is None for context in contexts):
            device = self.generator.device
            (drawn,) = torch.randint(2**62, (1,), generator=self.generator, device=device).tolist()
            equal_before: Counter[tuple[bytes, ...]] = Counter()
            for context, identity in zip(contexts, identities, strict=True):
                if context.stream is None:
                    context.stream = stream_of(drawn, equal_before[identity], *identity)
                equal_before[identity] += 1
        return identities

    @torch.inference_mode()
    def open(self, contexts: Sequence[TokenContext]) -> Session:
        """Start a session: compute each distinct prompt, but for its last token, once."""
        place: dict[tuple[bytes, ...], int] = {}
        unique: list[TokenContext] = []
        identities = self._identities(contexts)
        for context, identity in zip(contexts, identities, strict=True):
            context.computed = context.position = 0
            if place.setdefault(identity, len(unique)) == len(unique):
                unique.append(context)
        rows = [place[identity] for identity in identities]
        lengths = [len(context.ids) - 1 for context in unique]
        cache = GroupCache(lengths, rows)
        for part in alike(lengths, PREFILL_TOKENS):
            members = [unique[i] for i in part]
            self._forward(members, [one.ids[:-1] for one in members], PromptPass(cache, part))
        for context, row in zip(contexts, rows, strict=True):
            context.computed, context.position = unique[row].computed, unique[row].position
        return Session(list(contexts), cache)

    @torch.inference_mode()
    def resume(
        self,
        session: Session | None,
        contexts: Sequence[TokenContext],
        max_new_tokens: Sequence[int],
        temperature: float,
    ) -> tuple[list[Sampled], Session]:
        """Draw the next completion of each conversation, from a session's cache where it holds it.

        Conversations that the session does not know, or whose tokens it no longer holds, start a
        session of their own; the returned session then holds the newest batch.
        """
        known = {id(c) for c in session.contexts} if session is not None else set()
        if session is not None and all(id(c) in known for c in contexts):
            session.keep(contexts)
        else:
            session = self.open(contexts)
        return self.sample(session, contexts, max_new_tokens, temperature), session

    def _forward(
        self, contexts: Sequence[TokenContext], new: Sequence[Sequence[int]], store: Pass
    ) -> torch.Tensor:
        """Run the next tokens of each conversation; hidden states (B, D) of the last ones."""
        since, spent = time.perf_counter(), self.stats.seconds.get("encode", 0.0)
        vlm, device = self.vlm, self.vlm.device
        shape = len(new), max(map(len, new))
        ids = torch.full(shape, self._padding)
        positions = torch.zeros(3, *shape, dtype=torch.long)
        images: list[np.ndarray] = []
        for row, (context, tokens) in enumerate(zip(contexts, map(np.array, new), strict=True)):
            shows = np.isin(tokens, vlm.visual_ids).any()
            own = context.images_from(context.computed) if shows else []
            grids = [vlm.image_grid(*image_size(image)) for image in own]
            where, context.position = vlm.rope_positions(tokens, grids, context.position)
            ids[row, : len(tokens)] = torch.from_numpy(tokens)
            positions[:, row, : len(tokens)] = torch.from_numpy(where)
            context.computed += len(tokens)
            images += own
        features = self.image_features(images)
        with cached(vlm.language_model):
            hidden = vlm.forward(ids.to(device), positions.to(device), None, features, store=store)
        self._timed("prefill", since + self.stats.seconds.get("encode", 0.0) - spent)
        last = torch.tensor([len(tokens) - 1 for tokens in new], device=device)
        return hidden[torch.arange(len(new), device=device), last]

    def _draw(
        self, hidden: torch.Tensor, temperature: float, uniforms_B: np.ndarray
    ) -> tuple[list[int], list[float]]:
        """Draw a token a row from the tempered distribution without vision tokens.

        Raises:
            FloatingPointError: The logits are not finite: the weights have diverged.
        """
        logits = self.vlm.logits(hidden).float() / (temperature or 1.0)
        logits.index_fill_(-1, self._forbidden, -torch.inf)
        if temperature == 0.0:
            tokens = logits.argmax(dim=-1)
        else:
            tokens = inverse_draw(logits, torch.from_numpy(uniforms_B).to(logits.device))
        logprobs = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        said = logprobs.tolist()
        if not all(map(math.isfinite, said)):
            raise FloatingPointError("the logits are not finite: the weights have diverged")
        return tokens.tolist(), said

    @torch.inference_mode()
    def sample(
        self,
        session: Session,
        contexts: Sequence[TokenContext],
        max_new_tokens: Sequence[int],
        temperature: float,
    ) -> list[Sampled]:
        """Draw one completion a row; nothing is appended to the contexts.

        Args:
            session: Holds just these conversations.
            contexts: They end where the completion starts.
            max_new_tokens: Bound for each of them, at least 1.
            temperature: 0 is greedy; log-probabilities are those of the tempered distribution.

        Returns:
            One :class:`Sampled` a context. The last drawn token has no keys and values yet.
        """
        if min(max_new_tokens) < 1:
            raise ValueError(f"a completion of {min(max_new_tokens)} tokens cannot be drawn")
        asked = {id(context): i for i, context in enumerate(contexts)}
        rows = np.array([asked[id(context)] for context in session.contexts])
        new = [context.ids[context.computed :] for context in session.contexts]
        added = np.array([len(tokens) for tokens in new])
        hidden = self._forward(session.contexts, new, self._rows(session, added))
        since = time.perf_counter()
        drawn: list[Sampled] = [Sampled([], []) for _ in contexts]
        streams = np.array([context.stream for context in contexts], dtype=np.uint64)
        starts = np.array([len(context.ids) for context in contexts], dtype=np.uint64)
        positions = np.array([context.position for context in contexts])
        for step in itertools.count():
            uniforms_B = uniforms(streams[rows], starts[rows] + np.uint64(step))
            tokens, logprobs = self._draw(hidden, temperature, uniforms_B)
            going = []
            for place, (row, token) in enumerate(zip(rows.tolist(), tokens, strict=True)):
                drawn[row].ids.append(token)
                drawn[row].logprobs.append(logprobs[place])
                if token not in self.stop_ids and step + 1 < max_new_tokens[row]:
                    going.append(place)
            if not going:
                break
            if len(going) < len(rows):
                order = session.narrow(going)[: len(going)]
                rows, tokens = rows[order], [tokens[i] for i in order]
            hidden = self._next(session, tokens, positions[rows] + step)
        for context, one in zip(contexts, drawn, strict=True):
            context.computed += len(one.ids) - 1
            context.position += len(one.ids) - 1
            self.stats.tokens_sampled += len(one.ids)
        self._timed("decode", since)
        return drawn

    def _rows(self, session: Session, added: np.ndarray) -> RowPass:
        return RowPass(session.cache, added, self.vlm.device)

    def _next(self, session: Session, tokens: Sequence[int], positions: np.ndarray) -> torch.Tensor:
        """Run one token of each active row; hidden states (A, D)."""
        device = self.vlm.device
        ids = torch.tensor(tokens, device=device)[:, None]
        where = torch.from_numpy(positions).to(device)[None, :, None].expand(3, -1, -1)
        store = self._rows(session, np.ones(len(tokens), dtype=np.int64))
        with cached(self.vlm.language_model):
            return self.vlm.forward(ids, where, None, store=store)[:, 0]


def alike(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Places of sequences with any token in parts of at most `budget` padded tokens, longest first.

    >>> alike([5, 0, 90, 6, 100], 200)
    [[4, 2], [3, 0]]
    """
    parts: list[list[int]] = []
    for i in sorted((i for i, n in enumerate(lengths) if n), key=lambda i: -lengths[i]):
        if parts and lengths[parts[-1][0]] * (len(parts[-1]) + 1) <= budget:
            parts[-1].append(i)
        else:
            parts.append([i])
    return parts
