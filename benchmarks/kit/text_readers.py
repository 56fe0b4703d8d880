"""What a batch of texts becomes for the models that `split_study` compares: tokens, vectors made anew, a vector a token.

Unusual: the replay is given text numbers (`text_numbers`) where it expects behavior embeddings, so that rows, order,
seeds, `core.train` and `core.score` are the same for all. A reader then turns the numbers of a batch into what its
model reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from bahe_tasks.config import EncoderConfig
from bahe_tasks.core.batches import Batch, ItemBatch, SequenceGroup, UserBatch
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.llm_split import DeepLayers
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.core.text_encoder import TextEncoder
from bahe_tasks.core.tokens import TextTokenizer, padded
from benchmarks.kit.full_text import (
    FullTextBatch,
    FullTextCtrModel,
    TokenSequence,
    TokenSequences,
    TokenTable,
    newest_that_fit,
)

_TEXTS_AT_ONCE = 64
_EXACT_BELOW = 2**24
"""A float32 holds every whole number below it."""


def text_numbers(num_texts: int) -> np.ndarray:
    """Return the numbers 0 to M - 1, (M, 1) float32, to be given in place of embeddings. Raises `ValueError`."""
    if num_texts > _EXACT_BELOW:
        raise ValueError(f"{num_texts} texts cannot be told apart by a float32: read fewer days")
    return np.arange(num_texts, dtype=np.float32)[:, None]


class Reading(nn.Module):
    """A CTR model behind a reader. It has what `core.train` and `core.score` ask of a model."""

    def __init__(
        self,
        model: BaheCtrModel | FullTextCtrModel,
        spec: ModelSpec,
        read: Callable[[Batch], Batch] | Callable[[Batch], FullTextBatch],
    ) -> None:
        """`spec` says which text features and columns a batch has."""
        super().__init__()
        self.model = model
        self.spec = spec
        self.features = spec.features
        self.read = read

    @property
    def deep(self) -> DeepLayers:
        """All that counts as deep layers."""
        return cast(DeepLayers, self.model.deep)

    @property
    def columns(self) -> nn.Module:
        """Hashed and numeric columns of the model."""
        return self.model.columns

    @property
    def head(self) -> nn.Module:
        """The model's CTR head."""
        return self.model.head

    cheap_positions = False
    """A text is read at each position."""

    def forward(self, batch: Batch) -> torch.Tensor:
        """A batch of text numbers → logits (B, L)."""
        return self.model(self.read(batch))


@dataclass(frozen=True)
class WholeText:
    """Reads the tokens of all text features as one sequence, and those of the title: neither saving of the paper."""

    tokens: TokenTable
    features: tuple[str, ...]
    max_tokens: int

    def __call__(self, batch: Batch) -> FullTextBatch:
        """Each text feature may have max_tokens / N tokens, as in `newest_that_fit`."""
        device = batch.user_of.device
        room = self.max_tokens // max(len(self.features), 1)
        nothing = (self.tokens.ids[:0], np.zeros(0))
        read = {}
        for group in batch.users.groups:
            for slot, numbers, mask, ages in zip(
                group.slots.tolist(), _numbers(group.behaviors), _array(group.mask), _array(group.ages_s), strict=True
            ):
                read[slot] = newest_that_fit(numbers[mask], ages[mask], self.tokens, room=room)
        width = len(self.features)
        histories = [
            TokenSequence.of_features([read.get(u * width + n, nothing) for n in range(width)])
            for u in range(batch.users.num_rows)
        ]
        titles = [
            TokenSequence.of_title(self.tokens.of_texts(number[None][known[None]]))
            for number, known in zip(_numbers(batch.items.titles), _array(batch.items.known), strict=True)
        ]
        return FullTextBatch(
            histories=TokenSequences.of(histories, device),
            titles=TokenSequences.of(titles, device),
            user_of=batch.user_of,
            item_of=batch.item_of,
            cat=batch.cat,
            num=batch.num,
        )


@dataclass(frozen=True)
class EncodedAnew:
    """Runs the shallow layers over every text of every impression: shorter sequences, but no table of embeddings."""

    texts: list[str]
    encoder: TextEncoder

    def __call__(self, batch: Batch) -> Batch:
        """The same vectors as from a table, within rounding; a title is encoded once for each impression of it."""
        groups = tuple(
            dataclasses.replace(group, behaviors=self._encoded(group.behaviors, group.mask))
            for group in batch.users.groups
        )
        of_impressions = self._encoded(batch.items.titles[batch.item_of], batch.items.known[batch.item_of])
        titles = of_impressions.new_zeros(len(batch.items.titles), of_impressions.shape[1])
        titles[batch.item_of] = of_impressions
        return dataclasses.replace(
            batch, users=UserBatch(batch.users.num_rows, groups), items=ItemBatch(titles, batch.items.known)
        )

    def _encoded(self, behaviors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Text numbers (…, 1) and mask (…) → (…, H), zero where masked."""
        with torch.autocast(behaviors.device.type, enabled=False):  # a table is not encoded amid training
            vectors = self.encoder.encode([self.texts[n] for n in _numbers(behaviors[mask])])
        found = behaviors.new_zeros(*mask.shape, self.encoder.width)
        found[mask] = torch.from_numpy(vectors).to(found.device).float()
        return found


@dataclass(frozen=True)
class TokenVectors:
    """Reads a cached vector for each token of a behavior: a table of embeddings, but sequences as long as the text.

    The title stays one vector, as in BAHE.
    """

    tokens: TokenTable
    vectors: np.ndarray  # (tokens of all texts, H) float16, outputs of the shallow layers
    embeddings: np.ndarray  # (M, H) float16

    def __call__(self, batch: Batch) -> Batch:
        groups = tuple(self._by_token(group) for group in batch.users.groups)
        titles = torch.zeros(len(batch.items.titles), self.embeddings.shape[1], device=batch.items.titles.device)
        known = batch.items.known
        titles[known] = torch.from_numpy(self.embeddings[_numbers(batch.items.titles[known])]).to(titles.device).float()
        return dataclasses.replace(
            batch, users=UserBatch(batch.users.num_rows, groups), items=ItemBatch(titles, batch.items.known)
        )

    def _by_token(self, group: SequenceGroup) -> SequenceGroup:
        device = group.mask.device
        numbers, mask, ages = _numbers(group.behaviors), _array(group.mask), _array(group.ages_s)
        lengths = np.where(mask, self.tokens.lengths(numbers), 0)
        of_tokens = np.arange(lengths.sum(1).max()) < lengths.sum(1)[:, None]  # (Q, tokens)
        starts = self.tokens.starts[numbers[mask]]
        vectors = np.zeros((*of_tokens.shape, self.vectors.shape[1]), np.float32)
        vectors[of_tokens] = self.vectors[_ranges(starts, lengths[mask])]
        ages_s = np.zeros(of_tokens.shape, np.float32)
        ages_s[of_tokens] = np.repeat(ages[mask], lengths[mask])
        return SequenceGroup(
            behaviors=torch.from_numpy(vectors).to(device),
            mask=torch.from_numpy(of_tokens).to(device),
            ages_s=torch.from_numpy(ages_s).to(device),
            slots=group.slots,
        )


def whole_text_tokens(texts: list[str], tokenize: TextTokenizer) -> TokenTable:
    """Return the tokens of each text, its closing token included; what opens a text would stand inside the sequence."""
    opening = tokenize.tokenizer.cls_token_id
    ids = tokenize(texts) if texts else []
    return TokenTable.of([of_text[1:] if of_text[0] == opening and len(of_text) > 1 else of_text for of_text in ids])


@torch.inference_mode()
def token_vectors(
    texts: list[str], used: Iterable[int], *, checkpoint_dir: Path, encoder: EncoderConfig, device: torch.device
) -> tuple[TokenTable, np.ndarray]:
    """Return the outputs of the shallow layers for the tokens of the texts at `used`, (tokens, H) float16.

    A text that is not used has no token.
    """
    text_encoder = TextEncoder(checkpoint_dir, encoder, device=device)
    chosen = sorted(used)
    ids = dict(zip(chosen, text_encoder.tokenize([texts[n] for n in chosen]) if chosen else [], strict=True))
    table = TokenTable.of([ids.get(n, []) for n in range(len(texts))])
    vectors = np.zeros((len(table.ids), text_encoder.width), np.float16)
    by_length = sorted(chosen, key=lambda n: len(ids[n]))
    for start in range(0, len(by_length), _TEXTS_AT_ONCE):
        part = np.array(by_length[start : start + _TEXTS_AT_ONCE])
        input_ids, mask = (tensor.to(device) for tensor in padded([ids[n] for n in part]))
        hidden = text_encoder.shallow(input_ids, mask)[mask.bool()]
        vectors[_ranges(table.starts[part], table.lengths(part))] = hidden.half().cpu().numpy()
    return table, vectors


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return start, start + 1, … of each range, one after the other."""
    return np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())


def _numbers(behaviors: torch.Tensor) -> np.ndarray:
    return _array(behaviors[..., 0]).astype(np.int64)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.cpu().numpy()
