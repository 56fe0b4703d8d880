"""Click probabilities of impressions, and the user and item embeddings they can be computed from.

Where the user embedding does not depend on the item, `score` equals `score_pairs` over `user_embeddings` and
`item_embeddings`, within float tolerance. Where it does (`ModelConfig.user_is_cacheable` is false), only `score` exists:
the others raise `ItemDependentUserError`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from bahe_tasks.core.batch_threads import batch_a_thread
from bahe_tasks.core.batches import collate, collate_items, collate_users
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.kept_weights import weights_kept
from bahe_tasks.core.training_rows import (
    Histories,
    ImpressionRows,
    RowColumns,
    hashed_columns,
    numbers_read,
    row_columns,
)

_MIN_PAIRS_A_USER = 32
"""From how many on, on average, a user's share of the head is worth being done apart (benchmarks.score_cost)."""

PAIRS_AT_ONCE = 2048
"""A batch of a thread: fewer wait for Python, the embeddings of more leave the processor's caches (benchmarks.score_cost)."""


class NonFiniteScoreError(ArithmeticError):
    """A model output that is not a number."""


def score(
    model: BaheCtrModel,
    rows: ImpressionRows,
    embeddings: np.ndarray,
    *,
    index: np.ndarray | None = None,
    columns: RowColumns | None = None,
    batch_size: int,
    device: torch.device,
) -> np.ndarray:
    """Return the click probability of each row, or of those at `index`, (R,) float64. Raises `NonFiniteScoreError`.

    `columns` are those of the rows, where they are known already.
    """
    _made_ready(model, device)
    columns = columns or row_columns(rows, model.spec)
    cheap_positions = model.cheap_positions
    index = np.arange(len(rows)) if index is None else index
    by_state = np.argsort(columns.user_states[index], kind="stable")
    logits = np.zeros(len(index))
    with torch.inference_mode(), weights_kept():
        for chosen in _batches(len(index), batch_size):
            part = by_state[chosen]
            batch = collate(
                rows,
                embeddings,
                index[part],
                columns=columns,
                features=model.features,
                device=device,
                cheap_positions=cheap_positions,
            )
            logits[part] = model(batch)[:, 0].double().cpu().numpy()
    return _probabilities(logits)


def user_embeddings(
    model: BaheCtrModel,
    histories: dict[str, Histories],
    as_of: np.ndarray,
    embeddings: np.ndarray,
    *,
    batch_size: int,
    device: torch.device,
) -> np.ndarray:
    """Return the user embedding of each history row, (P, N·(E + X)) float32, text features in sorted order.

    `as_of` (P,) int64 microseconds is the time the age of each behavior is counted to.
    """
    _made_ready(model, device)
    found = np.zeros((len(as_of), len(model.features) * model.parts.of_history), np.float32)
    cheap_positions = model.cheap_positions
    with torch.inference_mode():
        for index in _batches(len(as_of), batch_size):
            users = collate_users(
                histories,
                as_of,
                embeddings,
                index,
                features=model.features,
                device=device,
                cheap_positions=cheap_positions,
            )
            found[index] = model.user_embedding(users).cpu().numpy()
    return _finite(found)


def item_embeddings(
    model: BaheCtrModel, title_rows: np.ndarray, embeddings: np.ndarray, *, batch_size: int, device: torch.device
) -> np.ndarray:
    """Return the item embedding of each title row (P,) int64, -1 = title not known: (P, E) float32."""
    _made_ready(model, device)
    found = np.zeros((len(title_rows), model.parts.of_item), np.float32)
    with torch.inference_mode():
        for index in _batches(len(title_rows), batch_size):
            items = collate_items(title_rows[index], embeddings, device=device)
            found[index] = model.item_embedding(items).cpu().numpy()
    return _finite(found)


def score_pairs(
    model: BaheCtrModel,
    user_embedding: np.ndarray,
    item_embedding: np.ndarray,
    *,
    user_of: np.ndarray | None = None,
    item_of: np.ndarray | None = None,
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    cat: dict[str, np.ndarray],
    num: dict[str, np.ndarray],
    sums: np.ndarray | None = None,
    batch_size: int = PAIRS_AT_ONCE,
    device: torch.device,
) -> np.ndarray:
    """Return the click probability of P pairs from cached embeddings (U, N·(E + X)) and (I, E): (P,) float64.

    `user_of` and `item_of` (P,) int64 are the rows of a pair in them; None: pair p has row p. Many candidates of a user
    are scored together, for a fraction of the work. `user_ids`, `item_ids` and the columns in `cat` are (P,) object,
    None = absent; those in `num` (P,) float64, NaN = absent. `sums` are (P, len(IMPRESSION_SUMS)) float64, NaN =
    absent; None: nothing is known of any pair.
    """
    _made_ready(model, device)
    count = len(user_ids)
    user_of = np.arange(count) if user_of is None else user_of
    item_of = np.arange(count) if item_of is None else item_of
    by_user = np.argsort(user_of, kind="stable")
    logits = np.zeros(count)

    def logit_of(part: np.ndarray) -> np.ndarray:
        hashed = hashed_columns(
            model.spec, user_ids=user_ids[part], item_ids=item_ids[part], cat={name: cat[name][part] for name in cat}
        )
        numbers = numbers_read(
            model.spec,
            {name: num[name][part] for name in num},
            None if sums is None else sums[part],
            num_rows=len(part),
        )
        users, counts = np.unique(user_of[part], return_counts=True)
        together = len(part) >= _MIN_PAIRS_A_USER * len(users)
        arrays = (
            _rows(user_embedding, users if together else user_of[part]),
            item_embedding[item_of[part]],
            hashed,
            numbers,
        )
        with torch.inference_mode():
            logit = model.click_logit(
                *(torch.from_numpy(array).to(device) for array in arrays),
                counts=torch.from_numpy(counts).to(device) if together else None,
            )
            return logit.double().cpu().numpy()

    parts = [by_user[index] for index in _batches(count, batch_size)]
    with weights_kept():
        for part, logit in zip(parts, batch_a_thread(logit_of, parts, device=device), strict=True):
            logits[part] = logit
    return _probabilities(logits)


def _made_ready(model: BaheCtrModel, device: torch.device) -> None:
    """Bring a model to the device, without dropout. Going through its modules takes longer than scoring some pairs."""
    if model.training or next(model.parameters()).device != device:
        model.to(device).eval()


def _rows(matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the rows of a matrix, numbers (B,), without a copy where each follows the one before."""
    if 0 <= rows[0] <= rows[-1] < len(matrix) and (np.diff(rows) == 1).all():
        return matrix[rows[0] : rows[0] + len(rows)]
    return matrix[rows]


def _batches(num_rows: int, batch_size: int) -> Iterator[np.ndarray]:
    for start in range(0, num_rows, batch_size):
        yield np.arange(start, min(start + batch_size, num_rows))


def _probabilities(logits: np.ndarray) -> np.ndarray:
    _finite(logits)
    return 1 / (1 + np.exp(-np.clip(logits, -700, 700)))


def _finite(values: np.ndarray) -> np.ndarray:
    bad = ~np.isfinite(values)
    if bad.any():
        raise NonFiniteScoreError(
            f"{int(bad.sum())} of {values.size} model outputs are not numbers: the model version is broken"
        )
    return values
