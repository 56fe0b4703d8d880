"""Click probabilities of impressions, and the user and item embeddings they can be computed from.

Where the user embedding does not depend on the item, `score` equals `score_pairs` over `user_embeddings` and
`item_embeddings`, within float tolerance. Where it does (`ModelConfig.user_is_cacheable` is false), only `score` exists:
the others raise `ItemDependentUserError`.

A device that runs out of memory is given half the rows or pairs at once, for the rest of the call, and one warning says
so; one that does not fit raises `torch.OutOfMemoryError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from bahe_tasks.core.batch_threads import batch_a_thread
from bahe_tasks.core.batches import collate, collate_items, collate_users
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.halving import Halving
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


class _Smaller(NamedTuple):
    """What is said where a batch does not fit the device."""

    unit: str
    advice: str
    of_one: str


_SMALLER_ROWS = _Smaller(
    "rows at once",
    "Set training.rows_a_pass lower to begin there: eight times as many are scored at once.",
    "One row alone does not fit the device's memory: lower sequences.max_behaviors_per_sequence, or set encoder.device "
    "to cpu.",
)
_SMALLER_PAIRS = _Smaller(
    "pairs at once",
    "Pairs of cached embeddings are small: something else fills the device.",
    "One pair alone does not fit the device's memory: set encoder.device to cpu.",
)


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

    def logit_of(chosen: np.ndarray) -> torch.Tensor:
        batch = collate(
            rows,
            embeddings,
            index[by_state[chosen]],
            columns=columns,
            features=model.features,
            device=device,
            cheap_positions=cheap_positions,
        )
        return model(batch)[:, 0].double()

    with weights_kept():
        for chosen, found in _made_in_batches(logit_of, len(index), batch_size=batch_size, device=device):
            logits[by_state[chosen]] = found
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

    def embedding_of(index: np.ndarray) -> torch.Tensor:
        users = collate_users(
            histories,
            as_of,
            embeddings,
            index,
            features=model.features,
            device=device,
            cheap_positions=cheap_positions,
        )
        return model.user_embedding(users)

    for index, made in _made_in_batches(embedding_of, len(as_of), batch_size=batch_size, device=device):
        found[index] = made
    return _finite(found)


def item_embeddings(
    model: BaheCtrModel, title_rows: np.ndarray, embeddings: np.ndarray, *, batch_size: int, device: torch.device
) -> np.ndarray:
    """Return the item embedding of each title row (P,) int64, -1 = title not known: (P, E) float32."""
    _made_ready(model, device)
    found = np.zeros((len(title_rows), model.parts.of_item), np.float32)

    def embedding_of(index: np.ndarray) -> torch.Tensor:
        return model.item_embedding(collate_items(title_rows[index], embeddings, device=device))

    for index, made in _made_in_batches(embedding_of, len(title_rows), batch_size=batch_size, device=device):
        found[index] = made
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

    def logit_of(index: np.ndarray) -> torch.Tensor:
        part = by_user[index]
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
        logit = model.click_logit(
            *(torch.from_numpy(array).to(device) for array in arrays),
            counts=torch.from_numpy(counts).to(device) if together else None,
        )
        return logit.double()

    with weights_kept():
        made = _made_in_batches(
            logit_of,
            count,
            batch_size=batch_size,
            device=device,
            batches_by=partial(batch_a_thread, device=device),
            smaller=_SMALLER_PAIRS,
        )
        for index, found in made:
            logits[by_user[index]] = found
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


def _made_in_batches(
    make: Callable[[np.ndarray], torch.Tensor],
    num_rows: int,
    *,
    batch_size: int,
    device: torch.device,
    batches_by: Callable[[Callable[[np.ndarray], np.ndarray], list[np.ndarray]], Iterable[np.ndarray]] = map,
    smaller: _Smaller = _SMALLER_ROWS,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, in order, batches of row numbers (B,) and what `make` makes of each, (B, ...), halved until they fit the device.

    `batches_by` calls a function with each batch and gives what it returns, in order. Raises `torch.OutOfMemoryError` where
    one row does not fit.
    """

    def made_of(index: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return make(index).cpu().numpy()

    halving = Halving(device, unit=smaller.unit, advice=smaller.advice)
    start = 0
    while start < num_rows:
        batches = [np.arange(n, min(n + batch_size, num_rows)) for n in range(start, num_rows, batch_size)]
        try:
            for index, made in zip(batches, batches_by(made_of, batches), strict=True):
                yield index, made
                start += len(index)
        except torch.OutOfMemoryError as error:
            tried = min(batch_size, num_rows - start)
            if tried == 1:
                error.add_note(smaller.of_one)
                raise
        else:
            return
        batch_size = halving.of(tried)


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
