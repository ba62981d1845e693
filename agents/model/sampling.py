"""Batched sampling from a checkpoint, with keys and values kept across the turns of a rollout.

Rows of a batch share one cache: every forward pass adds the same number of slots to all rows, and a
mask says which slots of a row hold real tokens. Identical prompts (the rollouts of a group) are
computed once and their keys and values copied. An image is encoded once per version of the weights.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers.cache_utils import Cache

from agents.base import AgentStats, image_key, image_size
from agents.model.kv_cache import growing_cache
from agents.model.vlm import VisionLanguageModel
from agents.text.context import TokenContext, stop_ids
from agents.text.conversation import Sampled


@dataclass
class Session:
    """A batch of conversations with their shared cache.

    Attributes:
        contexts: One conversation a row.
        cache: Keys and values, slots shared by all rows.
        valid: (B, slots) bool, true where a row's slot holds a token of that row.
    """

    contexts: list[TokenContext]
    cache: Cache = field(default_factory=growing_cache)
    valid: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))

    def select(self, keep: Sequence[int]) -> None:
        """Keep only some rows (repeats allowed), in the given order."""
        index = torch.tensor(list(keep), device=self.valid.device)
        self.contexts = [self.contexts[i] for i in keep]
        self.cache.batch_select_indices(index)
        self.valid = self.valid[index]


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

    @torch.inference_mode()
    def open(self, contexts: Sequence[TokenContext]) -> Session:
        """Start a session: compute each distinct prompt once and copy it to its rows."""
        place: dict[tuple[bytes, ...], int] = {}
        unique: list[TokenContext] = []
        rows: list[int] = []
        for context in contexts:
            key = (np.array(context.ids).tobytes(), *map(image_key, context.images))
            if key not in place:
                place[key] = len(unique)
                unique.append(context)
            rows.append(place[key])
        session = Session(unique)
        session.valid = torch.zeros(len(unique), 0, dtype=torch.bool, device=self.vlm.device)
        self._compute(session, [len(c.ids) - 1 for c in unique])
        for context, row in zip(contexts, rows, strict=True):
            context.computed, context.position = unique[row].computed, unique[row].position
        session.select(rows)
        session.contexts = list(contexts)
        return session

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
        known = {id(c): i for i, c in enumerate(session.contexts)} if session is not None else {}
        if session is not None and all(id(c) in known for c in contexts):
            session.select([known[id(c)] for c in contexts])
        else:
            for context in contexts:
                context.computed = context.position = 0
            session = self.open(contexts)
        return self.sample(session, max_new_tokens, temperature), session

    def _compute(self, session: Session, until: Sequence[int]) -> torch.Tensor:
        """Run each row's tokens up to index ``until`` through the model; hidden states of the last.

        Rows with nothing to compute only gain empty slots.
        """
        since, spent = time.perf_counter(), self.stats.seconds.get("encode", 0.0)
        vlm, device = self.vlm, self.vlm.device
        pending = [
            np.array(c.ids[c.computed : stop])
            for c, stop in zip(session.contexts, until, strict=True)
        ]
        b, width = len(pending), max((len(p) for p in pending), default=0)
        if width == 0:
            return torch.zeros(b, vlm.hidden_size, device=device)
        ids = torch.zeros(b, width, dtype=torch.long)
        positions = torch.zeros(3, b, width, dtype=torch.long)
        fresh = torch.zeros(b, width, dtype=torch.bool)
        images: list[np.ndarray] = []
        for row, (context, tokens) in enumerate(zip(session.contexts, pending, strict=True)):
            shows = np.isin(tokens, vlm.visual_ids).any()
            new = context.images_from(context.computed) if shows else []
            grids = [vlm.image_grid(*image_size(image)) for image in new]
            where, context.position = vlm.rope_positions(tokens, grids, context.position)
            ids[row, : len(tokens)] = torch.from_numpy(tokens)
            positions[:, row, : len(tokens)] = torch.from_numpy(where)
            fresh[row, : len(tokens)] = True
            context.computed += len(tokens)
            images += new
        fresh = fresh.to(device)
        own = torch.ones(width, width, dtype=torch.bool, device=device).tril() & fresh[:, None, :]
        own |= torch.eye(width, dtype=torch.bool, device=device)
        past = session.valid[:, None, :].expand(-1, width, -1)
        hidden = vlm.forward(
            ids.to(device),
            positions.to(device),
            torch.cat([past, own], dim=-1)[:, None],
            self.image_features(images),
            session.cache,
        )
        session.valid = torch.cat([session.valid, fresh], dim=1)
        last = torch.tensor([max(len(p) - 1, 0) for p in pending], device=device)
        self._timed("prefill", since + self.stats.seconds.get("encode", 0.0) - spent)
        return hidden[torch.arange(b, device=device), last]

    def _draw(self, hidden: torch.Tensor, temperature: float) -> tuple[list[int], list[float]]:
        """Draw a token a row from the tempered distribution without vision tokens."""
        logits = self.vlm.logits(hidden).float()
        logits[:, list(self.vlm.forbidden_ids)] = -torch.inf
        logprobs = torch.log_softmax(logits / (temperature or 1.0), dim=-1)
        if temperature == 0.0:
            tokens = logprobs.argmax(dim=-1)
        else:
            tokens = torch.multinomial(logprobs.exp(), 1, generator=self.generator)[:, 0]
        return tokens.tolist(), logprobs.gather(1, tokens[:, None])[:, 0].tolist()

    @torch.inference_mode()
    def sample(
        self, session: Session, max_new_tokens: Sequence[int], temperature: float
    ) -> list[Sampled]:
        """Draw one completion a row; nothing is appended to the contexts.

        Args:
            session: Rows whose contexts end where the completion starts.
            max_new_tokens: Bound for each row.
            temperature: 0 is greedy; log-probabilities are those of the tempered distribution.

        Returns:
            One :class:`Sampled` a row. The last drawn token has no keys and values yet.
        """
        hidden = self._compute(session, [len(c.ids) for c in session.contexts])
        since = time.perf_counter()
        vlm, device, b = self.vlm, self.vlm.device, len(session.contexts)
        drawn: list[Sampled] = [Sampled([], []) for _ in range(b)]
        at = torch.tensor([c.position for c in session.contexts], device=device)
        alive = [limit > 0 for limit in max_new_tokens]
        while True:
            tokens, logprobs = self._draw(hidden, temperature)
            for row in range(b):
                if alive[row]:
                    drawn[row].ids.append(tokens[row])
                    drawn[row].logprobs.append(logprobs[row])
                    full = len(drawn[row].ids) >= max_new_tokens[row]
                    alive[row] = not full and tokens[row] not in self.stop_ids
            if not any(alive):
                break
            flag = torch.tensor(alive, device=device)[:, None]
            session.valid = torch.cat([session.valid, flag], dim=1)
            mask = session.valid[:, None, None, :].clone()
            mask[..., -1] = True
            ids = torch.tensor(tokens, device=device)[:, None]
            hidden = vlm.forward(
                ids, at.expand(3, 1, -1).transpose(1, 2), mask, None, session.cache
            )[:, 0]
            at = at + flag[:, 0].long()
        for row, context in enumerate(session.contexts):
            fed = len(drawn[row].ids) - 1
            context.computed += max(fed, 0)
            context.position += max(fed, 0)
            self.stats.tokens_sampled += len(drawn[row].ids)
        self._timed("decode", since)
        return drawn
