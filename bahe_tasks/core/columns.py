"""Columns of impressions as the model reads them: hashed values, normalised numbers, labels. numpy alone.

A categorical value is hashed to a row of an embedding, the same on every machine and defined for values never seen. The
scale of a numeric column comes from the training rows of the day it appeared and never changes afterwards: the weights that
read it were trained on that scale. So it must stand absurd numbers on that day and other days than that: it is of quartiles,
and what lies far out is read as its logarithm.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

_CLIPPED_AT = 10.0  # one absurd number must not decide a prediction
_ROUNDING = 1e-12
_QUARTILES_APART = 1.349  # deviations of a normal distribution between its quartiles
_LEAST_NUMBERS = 20  # present on the day a column comes into force: its scale is kept for good

LABEL = "label"
"""Name of the click label among the labels in force; the others are the `label_NAME` columns, without `label_`."""
_OUTCOME_QUANTILES = (0.2, 0.4, 0.6, 0.8)


class NonFiniteNumberError(ValueError):
    """A numeric column that holds an infinity, or numbers too large to have a deviation."""


class LabelValueError(ValueError):
    """An extra label that is neither 0 nor 1."""


@dataclass(frozen=True)
class NumStatistics:
    """Where a numeric column lies and how far it spreads over training rows, in the column's own unit."""

    middle: float
    spread: float


def num_statistics(num: dict[str, np.ndarray]) -> dict[str, NumStatistics]:
    """Return median and distance of the quartiles, in deviations of a normal distribution, of each column's present numbers.

    Where the quartiles are alike, as of a count that is mostly 0, the spread is the median distance of the numbers that are not the median. A column with fewer than 20 numbers, or with
    one and the same, is left out: it is not in force until a day shows its scale. Raises `NonFiniteNumberError`.
    """
    found = {}
    for name, column in num.items():
        present = _finite_or_nan(name, column)
        present = present[~np.isnan(present)]
        if len(present) < _LEAST_NUMBERS:
            continue
        scale = _scale(present)
        if not np.isfinite(scale.middle + scale.spread):
            raise NonFiniteNumberError(f"num_{name} holds numbers too large to be normalised: scale it in the log")
        if scale.spread > 0:
            found[name] = scale
    return found


def normalised_numbers(
    statistics: dict[str, NumStatistics], num: dict[str, np.ndarray], *, num_rows: int
) -> np.ndarray:
    """Return arsinh((value - middle) / spread), clipped to ±10, of each column that has statistics, by name: (R, K) float32.

    It grows as the distance from the middle within the spread and as its logarithm beyond. NaN = absent. Raises `NonFiniteNumberError`.
    """
    numbers = np.full((num_rows, len(statistics)), np.nan, np.float32)
    for k, name in enumerate(sorted(statistics)):
        if name in num:
            scale = statistics[name]
            with np.errstate(over="ignore"):
                scaled = (_finite_or_nan(name, num[name]) - scale.middle) / scale.spread
            numbers[:, k] = np.clip(np.arcsinh(scaled), -_CLIPPED_AT, _CLIPPED_AT)
    return numbers


def hashed_rows(columns: dict[str, np.ndarray], names: tuple[str, ...], *, num_rows: int, buckets: int) -> np.ndarray:
    """Return the embedding row of every value, (R, C) int64 in the order of `names`; 0 = absent.

    `columns` are (R,) object, None = absent. The row is 1 + crc32(name, NUL, value) mod `buckets`.
    """
    rows = np.zeros((num_rows, len(names)), np.int64)
    for c, name in enumerate(names):
        if name in columns:
            start = zlib.crc32(name.encode() + b"\0")
            # Few values repeat over many rows, and looking one up is a third of hashing it.
            row_of = {
                value: 0 if value is None else 1 + zlib.crc32(value.encode("utf-8", "surrogatepass"), start) % buckets
                for value in set(columns[name])
            }
            rows[:, c] = np.fromiter(map(row_of.__getitem__, columns[name]), np.int64, num_rows)
    return rows


def outcome_thresholds(values: np.ndarray | None) -> tuple[float, ...]:
    """Return the values that split the outcome values of a day in up to five parts, rising; none for fewer than 20 values.

    `values` is (R,), NaN = none. Every threshold is above the least value: a label that is always 1 teaches nothing. Where
    more than four in five have the least value, the next one parts them, once 20 reach it.
    """
    present = np.zeros(0) if values is None else values[np.isfinite(values)]
    if len(present) < _LEAST_NUMBERS:
        return ()
    above = present[present > present.min()]
    found = np.unique(np.quantile(present, _OUTCOME_QUANTILES, method="higher"))
    if found[-1] == present.min() and len(above) >= _LEAST_NUMBERS:
        return (float(above.min()),)
    return tuple(float(value) for value in found if value > present.min())


def outcome_labels(thresholds: tuple[float, ...]) -> tuple[str, ...]:
    """Return the names of the labels that say whether an outcome value reaches a threshold."""
    return tuple(f"outcome>={threshold!r}" for threshold in thresholds)


def with_outcome_labels(
    extra: dict[str, np.ndarray], values: np.ndarray | None, thresholds: tuple[float, ...]
) -> dict[str, np.ndarray]:
    """Return the extra labels of R impressions and, by name, whether their outcome values reach each threshold.

    `values` is (R,), NaN = none, or None; the labels are (R,) float32, NaN = absent.
    """
    if values is None:
        return extra
    reached = {
        name: np.where(np.isnan(values), np.nan, values >= threshold).astype(np.float32)
        for name, threshold in zip(outcome_labels(thresholds), thresholds, strict=True)
    }
    return extra | reached


def label_columns(labels: np.ndarray, extra: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    """Return the click label and the extra labels `names`, (R, 1 + len(names)) float32, NaN = absent.

    Raises `LabelValueError`.
    """
    columns = [labels.astype(np.float32)]
    for name in names:
        column = np.asarray(extra.get(name, np.full(len(labels), np.nan)), np.float32)
        bad = ~(np.isnan(column) | (column == 0) | (column == 1))
        if bad.any():
            raise LabelValueError(
                f"label_{name} holds {column[bad][0]:g}: a label that is learnt must be 0 or 1; "
                "map it to 0 and 1 in the log, or start a lineage without it in model.extra_labels (docs/model.md)"
            )
        columns.append(column)
    return np.stack(columns, 1)


def _scale(present: np.ndarray) -> NumStatistics:
    """Return middle and spread of numbers; a spread of 0 where they differ by no more than rounding."""
    with np.errstate(over="ignore"):
        low, median, high = np.quantile(present, (0.25, 0.5, 0.75)).tolist()
        rounding = _ROUNDING * max(abs(low), abs(high))
        if high - low > rounding:
            return NumStatistics(median, (high - low) / _QUARTILES_APART)
        distances = abs(present - median)
        others = distances[distances > rounding]
        return NumStatistics(median, float(np.median(others)) if len(others) else 0.0)


def _finite_or_nan(name: str, column: np.ndarray) -> np.ndarray:
    column = np.asarray(column, np.float64)
    if np.isinf(column).any():
        raise NonFiniteNumberError(
            f"num_{name} holds {int(np.isinf(column).sum())} infinities: mend the log, leave them empty"
        )
    return column
