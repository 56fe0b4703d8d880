"""ModelSpec: everything about a model version but its weights, and how it grows from day to day.

Text features and columns in force are sorted names. A new one is added at the next fine-tune; one that vanished from
the log stays and is simply empty. The mean and deviation of a numeric column come from the training rows of the day it
appeared and never change afterwards: the weights that read it were trained on that scale.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bahe_tasks.config import ModelConfig

_ID_COLUMNS = ("id:user", "id:item")
_MAY_CHANGE = frozenset({"features", "cat_columns", "num_columns", "dropout"})
_CLIPPED_AT = 10.0  # deviations: one absurd number must not decide a prediction


class EncoderMismatchError(ValueError):
    """A parent model that was trained on embeddings of another encoder_version."""


class ModelMismatchError(ValueError):
    """A parent model whose weights do not fit the configured model."""


class NonFiniteNumberError(ValueError):
    """A numeric column that holds an infinity."""


@dataclass(frozen=True)
class NumStatistics:
    """Mean and standard deviation of one numeric column over training rows, in the column's own unit."""

    mean: float
    std: float


@dataclass(frozen=True)
class ModelSpec:
    """What a model version is made of. Features and columns are sorted names, without `cat_` or `num_`."""

    features: tuple[str, ...]
    cat_columns: tuple[str, ...]
    num_statistics: dict[str, NumStatistics]
    encoder_version: str
    num_shallow_layers: int
    llm_config: dict[str, Any]
    model: ModelConfig

    @property
    def num_columns(self) -> tuple[str, ...]:
        """Numeric columns in force."""
        return tuple(sorted(self.num_statistics))

    @property
    def hashed_columns(self) -> tuple[str, ...]:
        """What enters the head through hashed embeddings: "id:user", "id:item", then "cat:NAME" of each column."""
        ids = _ID_COLUMNS if self.model.id_embeddings else ()
        return (*ids, *(f"cat:{name}" for name in self.cat_columns))

    def grown(
        self,
        *,
        features: Iterable[str] = (),
        cat_columns: Iterable[str] = (),
        num_statistics: dict[str, NumStatistics] | None = None,
        model: ModelConfig | None = None,
    ) -> ModelSpec:
        """Return the spec of a child: the union of names, the parent's statistics for the columns it has.

        `model` is the configuration now in force; the fields that shape weights must equal the parent's.
        """
        return dataclasses.replace(
            self,
            features=tuple(sorted({*self.features, *features})),
            cat_columns=tuple(sorted({*self.cat_columns, *cat_columns})),
            num_statistics={**(num_statistics or {}), **self.num_statistics},
            model=model or self.model,
        )

    def to_json(self) -> str:
        """Return the spec as a JSON document."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read what `to_json` wrote."""
        document = json.loads(text)
        model: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in document["model"].items()}
        return cls(
            features=tuple(document["features"]),
            cat_columns=tuple(document["cat_columns"]),
            num_statistics={name: NumStatistics(**s) for name, s in document["num_statistics"].items()},
            encoder_version=document["encoder_version"],
            num_shallow_layers=document["num_shallow_layers"],
            llm_config=document["llm_config"],
            model=ModelConfig(**model),
        )


def check_parent(parent: ModelSpec, *, encoder_version: str, model: ModelConfig) -> None:
    """Raise `EncoderMismatchError` or `ModelMismatchError` when the parent cannot be trained on under these settings."""
    if parent.encoder_version != encoder_version:
        raise EncoderMismatchError(
            f"the parent model reads embeddings of {parent.encoder_version}, the configured encoder writes {encoder_version}: "
            "restore the encoder settings, or start a new lineage with another registry.model_name"
        )
    changed = [
        field.name
        for field in dataclasses.fields(ModelConfig)
        if field.name not in _MAY_CHANGE and getattr(parent.model, field.name) != getattr(model, field.name)
    ]
    if changed:
        raise ModelMismatchError(
            f"the parent model was built with another {', '.join('model.' + name for name in changed)}: "
            "restore the setting, or start a new lineage with another registry.model_name"
        )


def num_statistics(num: dict[str, np.ndarray]) -> dict[str, NumStatistics]:
    """Return mean and deviation of each column over its present numbers; the deviation of a constant column is 1.

    A column with no number at all is left out: it is not in force until it has one. Raises `NonFiniteNumberError`.
    """
    found = {}
    for name, column in num.items():
        present = _finite_or_nan(name, column)
        present = present[~np.isnan(present)]
        if len(present):
            std = float(present.std())
            found[name] = NumStatistics(float(present.mean()), std if std > 1e-12 * abs(present).max() else 1.0)
    return found


def hashed_rows(
    spec: ModelSpec, *, user_ids: np.ndarray, item_ids: np.ndarray, cat: dict[str, np.ndarray]
) -> np.ndarray:
    """Return the embedding row of every value, (R, C) int64 in the order of `spec.hashed_columns`; 0 = absent.

    The row is 1 + crc32(column, NUL, value) mod `hash_buckets`: the same on every machine, and defined for ids never seen.
    """
    columns = dict(zip(_ID_COLUMNS, (user_ids, item_ids), strict=True)) | {f"cat:{name}": cat[name] for name in cat}
    rows = np.zeros((len(user_ids), len(spec.hashed_columns)), np.int64)
    for c, name in enumerate(spec.hashed_columns):
        start = zlib.crc32(name.encode() + b"\0")
        rows[:, c] = [
            0
            if value is None
            else 1 + zlib.crc32(value.encode("utf-8", "surrogatepass"), start) % spec.model.hash_buckets
            for value in columns.get(name, ())
        ] or 0
    return rows


def normalised_numbers(spec: ModelSpec, num: dict[str, np.ndarray], *, num_rows: int) -> np.ndarray:
    """Return (value - mean) / std of the columns in force, clipped to ±10, (R, K) float32, NaN = absent.

    Raises `NonFiniteNumberError`.
    """
    numbers = np.full((num_rows, len(spec.num_columns)), np.nan, np.float32)
    for k, name in enumerate(spec.num_columns):
        if name in num:
            statistics = spec.num_statistics[name]
            scaled = (_finite_or_nan(name, num[name]) - statistics.mean) / statistics.std
            numbers[:, k] = np.clip(scaled, -_CLIPPED_AT, _CLIPPED_AT)
    return numbers


def _finite_or_nan(name: str, column: np.ndarray) -> np.ndarray:
    column = np.asarray(column, np.float64)
    if np.isinf(column).any():
        raise NonFiniteNumberError(
            f"num_{name} holds {int(np.isinf(column).sum())} infinities: mend the log, leave them empty"
        )
    return column
