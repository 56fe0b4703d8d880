"""The tensors of one batch of rows.

Impressions of one user state pass through the deep layers once (Request-Only Optimization, arXiv 2508.05640, does so at
industrial scale). Non-empty (user state, text feature) sequences are stacked for the deep layers ("feature parallel",
paper section 2); an empty one takes no part and gets a learned vector in the model.

Unusual: sequences are grouped by length, each group padded right to its longest (`length_groups`). With one group for
all, most positions would be padding: histories are mostly short.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bahe_tasks.core.length_groups import length_groups, pass_cost
from bahe_tasks.core.training_rows import Histories, ImpressionRows, RowColumns

MICROSECONDS_PER_SECOND = 1_000_000


class MissingEmbeddingError(LookupError):
    """A behavior or title that has no row in the embedding matrix."""


@dataclass(frozen=True)
class SequenceGroup:
    """Q behavior sequences of similar length, padded right."""

    behaviors: torch.Tensor  # (Q, S, H) float32
    mask: torch.Tensor  # (Q, S) bool
    ages_s: torch.Tensor  # (Q, S) float32, seconds from the behavior to the time of the impression
    slots: torch.Tensor  # (Q,) int64, u * N + n for user u and text feature n


@dataclass(frozen=True)
class UserBatch:
    """Histories of U users, each as of its own time."""

    num_rows: int
    groups: tuple[SequenceGroup, ...]


@dataclass(frozen=True)
class ItemBatch:
    """Titles of I items."""

    titles: torch.Tensor  # (I, H) float32, zero where not known
    known: torch.Tensor  # (I,) bool


@dataclass(frozen=True)
class Batch:
    """B impressions of U user states and I items: what is shared passes through the deep layers once."""

    users: UserBatch
    items: ItemBatch
    user_of: torch.Tensor  # (B,) int64, row in `users`
    item_of: torch.Tensor  # (B,) int64, row in `items`
    cat: torch.Tensor  # (B, C) int64
    num: torch.Tensor  # (B, K) float32, NaN = absent: the log's numeric columns, then point-in-time numbers


def collate(
    rows: ImpressionRows,
    embeddings: np.ndarray,
    index: np.ndarray,
    *,
    columns: RowColumns,
    features: tuple[str, ...],
    device: torch.device,
    cheap_positions: bool = False,
) -> Batch:
    """Return the batch of the rows at `index` (B,) int64. `embeddings` is (M, H) float16.

    `cheap_positions` is that of the model. One deep pass per user state: the paper passes a user's histories through the deep layers for each impression.
    """
    _, first_of_state, user_of = np.unique(columns.user_states[index], return_index=True, return_inverse=True)
    titles, item_of = np.unique(rows.title_rows[index], return_inverse=True)
    users = index[first_of_state]
    return Batch(
        users=collate_users(
            rows.histories,
            rows.as_of,
            embeddings,
            users,
            features=features,
            device=device,
            cheap_positions=cheap_positions,
        ),
        items=collate_items(titles, embeddings, device=device),
        user_of=torch.from_numpy(user_of.astype(np.int64)).to(device),
        item_of=torch.from_numpy(item_of.astype(np.int64)).to(device),
        cat=torch.from_numpy(columns.cat[index]).to(device),
        num=torch.from_numpy(columns.num[index]).to(device),
    )


def collate_items(title_rows: np.ndarray, embeddings: np.ndarray, *, device: torch.device) -> ItemBatch:
    """Return the titles at `title_rows` (I,) int64, -1 = not known. Raises `MissingEmbeddingError`."""
    if len(title_rows) and not -1 <= title_rows.min() <= title_rows.max() < len(embeddings):
        raise MissingEmbeddingError(
            f"title rows {title_rows.min()} to {title_rows.max()}, but the embedding matrix has {len(embeddings)} rows: "
            "encode the missing titles first"
        )
    known = title_rows >= 0
    titles = np.zeros((len(title_rows), embeddings.shape[1]), np.float32)
    titles[known] = gathered(embeddings, title_rows[known])
    return ItemBatch(torch.from_numpy(titles).to(device), torch.from_numpy(known).to(device))


def gathered(embeddings: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the embeddings (M, H) at the rows, of any shape: (*rows, H). `take` copies rows sooner than an index does."""
    return np.take(np.asarray(embeddings), rows, axis=0)


def collate_users(
    histories: dict[str, Histories],
    as_of: np.ndarray,
    embeddings: np.ndarray,
    index: np.ndarray,
    *,
    features: tuple[str, ...],
    device: torch.device,
    cheap_positions: bool = False,
) -> UserBatch:
    """Return the non-empty sequences of the rows at `index` (U,) int64, ages relative to `as_of` (R,) microseconds.

    A text feature in force that the log no longer has is empty for every row.
    """
    starts, lengths, slots = [], [], []
    behavior_rows, ages = [], []
    offset = 0
    for n, feature in enumerate(features):
        if feature not in histories:
            continue
        history = histories[feature]
        length = history.ends[index] - history.starts[index]
        filled = np.flatnonzero(length > 0)
        length = length[filled]
        first = np.cumsum(length) - length
        position = np.repeat(history.starts[index][filled] - first, length) + np.arange(length.sum())
        starts.append(first + offset)
        lengths.append(length)
        slots.append(filled * len(features) + n)
        behavior_rows.append(history.behavior_rows[position])
        ages.append((np.repeat(as_of[index][filled], length) - history.occurred_at[position]) / MICROSECONDS_PER_SECOND)
        offset += len(position)
    if offset == 0:
        return UserBatch(len(index), ())
    return UserBatch(
        len(index),
        _grouped(
            np.concatenate(starts),
            np.concatenate(lengths),
            np.concatenate(slots),
            behavior_rows=np.concatenate(behavior_rows),
            ages_s=np.concatenate(ages).astype(np.float32),
            embeddings=embeddings,
            device=device,
            cheap_positions=cheap_positions,
        ),
    )


def _grouped(
    starts: np.ndarray,
    lengths: np.ndarray,
    slots: np.ndarray,
    *,
    behavior_rows: np.ndarray,
    ages_s: np.ndarray,
    embeddings: np.ndarray,
    device: torch.device,
    cheap_positions: bool,
) -> tuple[SequenceGroup, ...]:
    if not 0 <= behavior_rows.min() <= behavior_rows.max() < len(embeddings):
        raise MissingEmbeddingError(
            f"behavior rows {behavior_rows.min()} to {behavior_rows.max()}, but the embedding matrix has "
            f"{len(embeddings)} rows: encode the missing behaviors first"
        )
    groups = []
    for chosen in length_groups(lengths, pass_cost=pass_cost(device, cheap_positions=cheap_positions)):
        steps = np.arange(lengths[chosen].max())
        mask = steps < lengths[chosen][:, None]
        position = np.where(mask, starts[chosen][:, None] + steps, starts[chosen][:, None])
        groups.append(
            SequenceGroup(
                behaviors=torch.from_numpy(gathered(embeddings, behavior_rows[position])).to(device).float(),
                mask=torch.from_numpy(mask).to(device),
                ages_s=torch.from_numpy(ages_s[position]).to(device),
                slots=torch.from_numpy(slots[chosen]).to(device),
            )
        )
    return tuple(groups)
