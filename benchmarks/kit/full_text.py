"""LLM-CTR, what the paper compares BAHE with: the same LLM uncut, trained whole, over the tokens of a user's whole history.

One sequence holds all text features, one after the other in sorted order, each oldest behavior first; its pooled output is
the user embedding (B, H). The title passes through the same LLM alone. Columns, head, age of a behavior and the learned
vectors of an empty history and an unknown item are those of `core`, so that what differs is table and split alone.

Unusual: tokens are looked up here and given to the LLM as vectors, so that the age of the behavior a token belongs to can
be added, a learned vector that is zero at first. Lookup and LLM are both trained. With `behavior_pooling: summary` a
sequence of tokens ends with the mean of its vectors, as a sequence of behaviors does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from bahe_tasks.config import ModelConfig
from bahe_tasks.core.batches import MICROSECONDS_PER_SECOND
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.expected_click import ExpectedClick, label_logits
from bahe_tasks.core.head_fields import ColumnFields, embedding_fields, field_sizes
from bahe_tasks.core.heads import HEADS
from bahe_tasks.core.length_groups import length_groups, pass_cost
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.core.pooling import pool
from bahe_tasks.core.sequence_inputs import age_buckets, with_summary_last
from bahe_tasks.core.training_rows import ImpressionRows, RowColumns
from bahe_tasks.core.user_fields import EmbeddingParts

HISTORY = ("history",)
"""The one text feature that the head sees."""


class NotFullTextError(ValueError):
    """A setting of the model that has no meaning where the LLM reads the whole text."""


@dataclass(frozen=True)
class TokenTable:
    """Tokens of M texts, in the order of the embedding matrix: text m is ids[starts[m] : starts[m + 1]].

    Whatever stands between two behaviors of a sequence, such as a separator, is part of a text's tokens.
    """

    ids: np.ndarray  # (tokens of all texts,) int64
    starts: np.ndarray  # (M + 1,) int64

    @classmethod
    def of(cls, token_ids: Iterable[list[int]]) -> TokenTable:
        """Build it from the token ids of each text."""
        lists = list(token_ids)
        lengths = [len(ids) for ids in lists]
        return cls(np.concatenate([np.array(ids, np.int64) for ids in lists]), np.cumsum([0, *lengths]))

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of tokens of the texts at `rows`."""
        return self.starts[rows + 1] - self.starts[rows]

    def of_texts(self, rows: np.ndarray) -> np.ndarray:
        """Return the tokens of the texts at `rows`, one text after the other."""
        return np.concatenate([self.ids[:0], *(self.ids[self.starts[r] : self.starts[r + 1]] for r in rows)])


class TokenSequence(NamedTuple):
    """One of T tokens."""

    ids: np.ndarray  # (T,) int64
    ages_s: np.ndarray  # (T,)
    feature_of: np.ndarray  # (T,) int64

    @classmethod
    def of_features(cls, parts: list[tuple[np.ndarray, np.ndarray]]) -> TokenSequence:
        """Put the tokens and ages of each text feature one after the other."""
        lengths = [len(ids) for ids, _ in parts]
        empty = (np.zeros(0, np.int64), np.zeros(0))
        ids, ages = (np.concatenate(arrays) for arrays in zip(empty, *parts, strict=True))
        return cls(ids, ages, np.repeat(np.arange(1, len(parts) + 1), lengths))

    @classmethod
    def of_title(cls, ids: np.ndarray) -> TokenSequence:
        return cls(ids, np.zeros(len(ids)), np.zeros(len(ids), np.int64))


@dataclass(frozen=True)
class TokenSequences:
    """Sequences of T tokens, padded right."""

    ids: torch.Tensor  # (B, T) int64
    mask: torch.Tensor  # (B, T) bool
    ages_s: torch.Tensor  # (B, T) float32, seconds from a token's behavior to the time histories end at
    feature_of: torch.Tensor  # (B, T) int64, the text feature a token is of, from 1; 0 in titles

    @classmethod
    def of(cls, sequences: list[TokenSequence], device: torch.device) -> TokenSequences:
        """Pad the sequences on the right, to one token at least."""
        lengths = np.array([len(sequence.ids) for sequence in sequences])
        mask = np.arange(max(lengths.max(initial=0), 1)) < lengths[:, None]
        padded = [np.zeros(mask.shape, dtype) for dtype in (np.int64, np.float32, np.int64)]
        for array, parts in zip(padded, zip(*sequences, strict=True), strict=False):
            array[mask] = np.concatenate(parts)
        ids, ages, feature_of = (torch.from_numpy(array).to(device) for array in padded)
        return cls(ids, torch.from_numpy(mask).to(device), ages, feature_of)

    def of_group(self, chosen: torch.Tensor) -> TokenSequences:
        """Return the sequences at `chosen` (Q,) int64, padded to their longest."""
        mask = self.mask[chosen]
        longest = max(int(mask.sum(1).max()), 1)
        return TokenSequences(
            self.ids[chosen, :longest],
            mask[:, :longest],
            self.ages_s[chosen, :longest],
            self.feature_of[chosen, :longest],
        )


@dataclass(frozen=True)
class FullTextBatch:
    """B impressions of U user states and I items, as in `core.batches`. An empty history and an unknown title have no token."""

    histories: TokenSequences  # U of them
    titles: TokenSequences  # I of them
    user_of: torch.Tensor  # (B,) int64, row in `histories`
    item_of: torch.Tensor  # (B,) int64, row in `titles`
    cat: torch.Tensor  # (B, C) int64
    num: torch.Tensor  # (B, K) float32, NaN = absent


def collate_full_text(
    rows: ImpressionRows,
    tokens: TokenTable,
    index: np.ndarray,
    *,
    columns: RowColumns,
    features: tuple[str, ...],
    max_tokens: int,
    device: torch.device,
) -> FullTextBatch:
    """Return the batch of the rows at `index` (B,) int64, each a user state and an item of its own.

    Each text feature may have max_tokens / N tokens, as in `newest_that_fit`.
    """
    room = max_tokens // max(len(features), 1)
    histories, titles = [], []
    for r in index:
        parts = [(tokens.ids[:0], np.zeros(0)) for _ in features]
        for n, feature in enumerate(features):
            if feature not in rows.histories:
                continue
            history = rows.histories[feature]
            read = slice(history.starts[r], history.ends[r])
            ages_s = (rows.as_of[r] - history.occurred_at[read]) / MICROSECONDS_PER_SECOND
            parts[n] = newest_that_fit(history.behavior_rows[read], ages_s, tokens, room=room)
        histories.append(TokenSequence.of_features(parts))
        title = rows.title_rows[r : r + 1]
        titles.append(TokenSequence.of_title(tokens.of_texts(title[title >= 0])))
    own = torch.arange(len(index), device=device)
    return FullTextBatch(
        histories=TokenSequences.of(histories, device),
        titles=TokenSequences.of(titles, device),
        user_of=own,
        item_of=own,
        cat=torch.from_numpy(columns.cat[index]).to(device),
        num=torch.from_numpy(columns.num[index]).to(device),
    )


def newest_that_fit(
    texts: np.ndarray, ages_s: np.ndarray, tokens: TokenTable, *, room: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return token ids and the age of each token, of the newest of the behaviors (S,), oldest first.

    Behaviors are read whole, until the next older one has no room among `room` tokens.
    """
    fits = np.cumsum(tokens.lengths(texts)[::-1])[::-1] <= room
    return tokens.of_texts(texts[fits]), np.repeat(ages_s[fits], tokens.lengths(texts[fits]))


class FullTextCtrModel(nn.Module):
    """The LLM over whole histories and titles, and a CTR head.

    `deep`, `columns` and `spec` carry the names that `core.optimizers.Optimizers` reads: all of the LLM counts as deep.
    """

    def __init__(self, spec: ModelSpec, llm: PreTrainedModel) -> None:
        """`spec` is that of the BAHE model to compare with, which says what the head is; the LLM is taken over."""
        super().__init__()
        settings = spec.model
        if (
            not settings.user_is_cacheable
            or settings.behavior_pooling == "attention"
            or settings.position_buckets
            or settings != without_behaviors(settings)
            or settings.deep_attention != "as_trained"
            or settings.deep_tuning == "lora"
        ):
            raise NotFullTextError(
                "LLM-CTR has no model.head din, item_reading beside, behavior_pooling attention, position_buckets, text_topics, text_id_width, history_extents, "
                "deep_attention or LoRA: compare with a BAHE model that has none of them either"
            )
        self.spec = dataclasses.replace(spec, features=HISTORY)
        self.deep = llm
        llm.config.use_cache = False
        width = int(llm.config.hidden_size)
        self.recency = nn.Embedding(max(spec.model.recency_buckets, 1), width)
        nn.init.zeros_(self.recency.weight)
        self.recency.requires_grad_(spec.model.recency_buckets > 0)
        self.feature = nn.Embedding(len(spec.features) + 1, width)  # else liked and disliked titles would be one
        nn.init.zeros_(self.feature.weight)
        self.empty_history = nn.Parameter(0.02 * torch.randn(width))
        self.unknown_item = nn.Parameter(0.02 * torch.randn(width))
        self.columns = ColumnFields(spec)
        self.head = HEADS[spec.model.head](field_sizes(self.spec, width=width), spec.labels, spec.model)
        self.expected_click = ExpectedClick() if spec.numbers else None

    def user_embedding(self, histories: TokenSequences) -> torch.Tensor:
        """Histories of B users → (B, H)."""
        return self._read(histories, self.empty_history)

    def item_embedding(self, titles: TokenSequences) -> torch.Tensor:
        """Titles of B items → (B, H)."""
        return self._read(titles, self.unknown_item)

    def forward(self, batch: FullTextBatch) -> torch.Tensor:
        """Logits of a batch, (B, L), the click's first."""
        user = self.user_embedding(batch.histories)[batch.user_of]
        item = self.item_embedding(batch.titles)[batch.item_of]
        fields = embedding_fields(HISTORY, user, item, parts=EmbeddingParts(user.shape[1], 0, 0, 0)) | self.columns(
            batch.cat, batch.num
        )
        return label_logits(self.head, self.expected_click, fields)

    def _read(self, sequences: TokenSequences, if_empty: torch.Tensor) -> torch.Tensor:
        """Read sequences of similar length together, as `core.batches` does; an empty one is the learned vector."""
        filled = sequences.mask.any(1).nonzero()[:, 0]
        pooled = if_empty.repeat(len(sequences.mask), 1)
        if not len(filled):
            return pooled
        lengths = sequences.mask[filled].sum(1).cpu().numpy()
        for of_filled in length_groups(lengths, pass_cost=pass_cost(filled.device, cheap_positions=False)):
            chosen = filled[torch.from_numpy(of_filled).to(filled.device)]
            group = sequences.of_group(chosen)
            vectors = self.deep.get_input_embeddings()(group.ids)
            ages = age_buckets(group.ages_s, num_buckets=self.recency.num_embeddings)
            vectors = vectors + (self.recency(ages) + self.feature(group.feature_of)).to(vectors.dtype)
            mask, pooling = group.mask, self.spec.model.behavior_pooling
            if pooling == "summary":
                (vectors, mask), pooling = with_summary_last(vectors, mask), "last"
            hidden = self.deep(inputs_embeds=vectors, attention_mask=mask.long()).last_hidden_state
            found = pool(hidden, mask, pooling=pooling)  # type: ignore[arg-type]
            pooled = pooled.index_copy(0, chosen, found.to(pooled.dtype))
        return pooled


def without_behaviors(settings: ModelConfig) -> ModelConfig:
    """Return the settings of a BAHE model that LLM-CTR can be compared with: it knows no behaviors apart."""
    return dataclasses.replace(settings, text_topics=0, text_id_width=0, history_extents=False)


def as_trainable(model: FullTextCtrModel) -> BaheCtrModel:
    """Return the model under the type that `core.optimizers.Optimizers` asks for; it reads what both models have."""
    return cast(BaheCtrModel, model)
