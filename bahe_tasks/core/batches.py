"""Training rows in memory, and the tensors of one batch of them.

A history is a slice of the arrays its user's impressions share: it is never copied per impression. Impressions with the
same histories as of the same time are one user state, which passes through the deep layers once (Request-Only
Optimization, arXiv 2508.05640, does so at industrial scale). Non-empty (user state, text feature) sequences are stacked for the deep layers ("feature parallel", paper section 2); an empty one
takes no part and gets a learned vector in the model.

Unusual: sequences are grouped by length, each group padded right to its longest (`length_groups`). With one group for
all, most positions would be padding: histories are mostly short.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from bahe_tasks.core.columns import hashed_rows, normalised_numbers
from bahe_tasks.core.length_groups import length_groups
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.core.point_in_time import point_in_time_numbers

MICROSECONDS_PER_SECOND = 1_000_000


class MissingEmbeddingError(LookupError):
    """A behavior or title that has no row in the embedding matrix."""


@dataclass(frozen=True)
class Histories:
    """One text feature's histories of R impressions: row r reads positions [starts[r], ends[r]), oldest first."""

    behavior_rows: np.ndarray  # (E,) int64, row in the embedding matrix
    occurred_at: np.ndarray  # (E,) int64, microseconds since 1970 UTC
    values: np.ndarray  # (E,) float32, NaN = absent
    starts: np.ndarray  # (R,) int64, already clipped to the newest S
    ends: np.ndarray  # (R,) int64, exclusive


@dataclass(frozen=True)
class ImpressionRows:
    """R impressions in training order: by shown_at, then impression_id."""

    impression_ids: np.ndarray  # (R,) object
    user_ids: np.ndarray  # (R,) object
    item_ids: np.ndarray  # (R,) object
    shown_at: np.ndarray  # (R,) int64, microseconds since 1970 UTC
    as_of: np.ndarray  # (R,) int64, the time histories end at and ages count to, at or before shown_at
    labels: np.ndarray  # (R,) float32, 0 or 1
    title_rows: np.ndarray  # (R,) int64, row in the embedding matrix, -1 = no title known
    histories: dict[str, Histories]  # by text feature
    cat: dict[str, np.ndarray]  # (R,) object, None = absent
    num: dict[str, np.ndarray]  # (R,) float64, NaN = absent
    extra_labels: dict[str, np.ndarray] = field(default_factory=dict)  # (R,) float32, 0 or 1, NaN = absent
    sums: np.ndarray | None = None  # (R, len(IMPRESSION_SUMS)) float64, NaN = absent
    outcome_values: np.ndarray | None = None  # (R,) float64, NaN = none (`bahe_tasks.outcome_values`)

    def __len__(self) -> int:
        return len(self.impression_ids)


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


@dataclass(frozen=True)
class RowColumns:
    """What is computed once for all batches of R impressions."""

    cat: np.ndarray  # (R, C) int64
    num: np.ndarray  # (R, K) float32
    user_states: np.ndarray  # (R,) int64, equal where histories and their time are


def row_columns(rows: ImpressionRows, spec: ModelSpec) -> RowColumns:
    """Hash categorical columns, normalise numeric ones and tell the user states apart."""
    apart = spec.model.item_reading == "apart"
    return RowColumns(
        cat=hashed_columns(spec, user_ids=rows.user_ids, item_ids=rows.item_ids, cat=rows.cat),
        num=numbers_read(spec, rows.num, rows.sums, num_rows=len(rows)),
        user_states=user_states(rows, spec.features) if apart else np.arange(len(rows)),
    )


def hashed_columns(
    spec: ModelSpec, *, user_ids: np.ndarray, item_ids: np.ndarray, cat: dict[str, np.ndarray]
) -> np.ndarray:
    """Return the embedding rows of ids and categorical columns, (R, C) int64, 0 = absent."""
    columns = {"id:user": user_ids, "id:item": item_ids} | {f"cat:{name}": column for name, column in cat.items()}
    return hashed_rows(columns, spec.hashed_columns, num_rows=len(user_ids), buckets=spec.model.hash_buckets)


def numbers_read(spec: ModelSpec, num: dict[str, np.ndarray], sums: np.ndarray | None, *, num_rows: int) -> np.ndarray:
    """Return the log's numeric columns and beside them the point-in-time numbers, (R, K) float32, NaN = absent.

    `sums` (R, len(IMPRESSION_SUMS)) is None where nothing was counted: then the numbers in force are all absent.
    """
    of_log = normalised_numbers(spec.num_statistics, num, num_rows=num_rows)
    if not spec.numbers:
        return of_log
    absent = np.full((num_rows, len(spec.numbers)), np.nan, np.float32)
    return np.concatenate([of_log, absent if sums is None else point_in_time_numbers(sums)], 1)


def user_states(rows: ImpressionRows, features: tuple[str, ...]) -> np.ndarray:
    """Number the distinct (histories, as_of) in no particular order: (R,) int64. Without any history the time is nothing."""
    columns = [rows.as_of]
    for feature in features:
        if feature in rows.histories:
            history = rows.histories[feature]
            filled = history.ends > history.starts
            columns += [np.where(filled, history.starts, -1), np.where(filled, history.ends, -1)]
    keys = np.stack(columns, 1)
    keys[(keys[:, 1:] == -1).all(1), 0] = 0
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)


def passed_together(rows: ImpressionRows, features: tuple[str, ...], columns: RowColumns) -> np.ndarray:
    """Return a number for each row (R,) int64, the same for rows that share the deep layers' work on their user.

    Rows without any history have a number each: they pass no deep layer that they could share.
    """
    _, first, state = np.unique(columns.user_states, return_index=True, return_inverse=True)
    own = np.arange(len(rows))
    filled = np.zeros(len(rows), bool)
    for feature in features:
        if feature in rows.histories:
            filled |= rows.histories[feature].ends > rows.histories[feature].starts
    return np.where(filled, first[state.reshape(-1)], own)


def num_behaviors(rows: ImpressionRows, features: tuple[str, ...]) -> np.ndarray:
    """Return the behaviors of each row's histories, all text features together, (R,) int64."""
    return sum(
        (rows.histories[name].ends - rows.histories[name].starts for name in features if name in rows.histories),
        np.zeros(len(rows), np.int64),
    )


def shuffled(states: np.ndarray, *, seed: tuple[int, ...]) -> np.ndarray:
    """Return the rows (R,) int64 in an order drawn from the seed, rows of one state together."""
    place = np.random.default_rng(seed).permutation(len(states))
    return np.argsort(place[states], kind="stable")


def collate(
    rows: ImpressionRows,
    embeddings: np.ndarray,
    index: np.ndarray,
    *,
    columns: RowColumns,
    features: tuple[str, ...],
    device: torch.device,
) -> Batch:
    """Return the batch of the rows at `index` (B,) int64. `embeddings` is (M, H) float16.

    One deep pass per user state: the paper passes a user's histories through the deep layers for each impression.
    """
    _, first_of_state, user_of = np.unique(columns.user_states[index], return_index=True, return_inverse=True)
    titles, item_of = np.unique(rows.title_rows[index], return_inverse=True)
    users = index[first_of_state]
    return Batch(
        users=collate_users(rows.histories, rows.as_of, embeddings, users, features=features, device=device),
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
) -> tuple[SequenceGroup, ...]:
    if not 0 <= behavior_rows.min() <= behavior_rows.max() < len(embeddings):
        raise MissingEmbeddingError(
            f"behavior rows {behavior_rows.min()} to {behavior_rows.max()}, but the embedding matrix has "
            f"{len(embeddings)} rows: encode the missing behaviors first"
        )
    groups = []
    for chosen in length_groups(lengths, device=device):
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
