"""ModelSpec: everything about a model version but its weights, and how it grows from day to day.

Text features, columns and labels in force are sorted names. A new one is added at the next fine-tune; one that vanished
from the log stays and is simply empty.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bahe_tasks.config import ModelConfig
from bahe_tasks.core.columns import LABEL, NumStatistics, outcome_labels
from bahe_tasks.core.point_in_time import NUMBERS
from bahe_tasks.wrong_use import WrongUseError

_ID_COLUMNS = ("id:user", "id:item")
_MAY_CHANGE = frozenset({"features", "cat_columns", "num_columns", "extra_labels", "dropout", "lora_dropout"})
_ARCHITECTURE = 8
"""Raised whenever the same spec and weights would mean another model."""
_NEW_LINEAGE = "restore the setting, or start a new lineage with another registry.model_name (docs/model.md)"


class EncoderMismatchError(WrongUseError):
    """A parent model that was trained on embeddings of another encoder_version."""


class ModelMismatchError(WrongUseError):
    """A parent model whose weights do not fit the configured model."""


@dataclass(frozen=True)
class ModelSpec:
    """What a model version is made of. Features, columns and labels are sorted names, without `cat_`, `num_`, `label_`.

    `numbers` are the point-in-time numbers it reads (`core.point_in_time`), in order; `first_rate`, the share of clicks among
    the rows that the first model of the lineage was made for (of each, with `start_from: scratch`), stands for the base rate of rows from before any label was known; `outcome_thresholds` what outcome
    values are compared with, in their unit, those of the first day that had enough of them. `trained_steps` count from the first fine-tune of the lineage.
    """

    features: tuple[str, ...]
    cat_columns: tuple[str, ...]
    num_statistics: dict[str, NumStatistics]
    encoder_version: str
    num_shallow_layers: int
    llm_config: dict[str, Any]
    model: ModelConfig
    extra_labels: tuple[str, ...] = ()
    outcome_thresholds: tuple[float, ...] = ()
    numbers: tuple[str, ...] = ()
    first_rate: float = 0.5
    trained_steps: int = 0
    architecture: int = _ARCHITECTURE

    @property
    def num_columns(self) -> tuple[str, ...]:
        """Numeric columns in force."""
        return tuple(sorted(self.num_statistics))

    @property
    def hashed_columns(self) -> tuple[str, ...]:
        """What enters the head through hashed embeddings: "id:user", "id:item", then "cat:NAME" of each column."""
        ids = _ID_COLUMNS if self.model.id_embeddings else ()
        return (*ids, *(f"cat:{name}" for name in self.cat_columns))

    @property
    def landed_labels(self) -> tuple[str, ...]:
        """Labels that the log has: the click label, then the extra ones."""
        return (LABEL, *self.extra_labels)

    @property
    def labels(self) -> tuple[str, ...]:
        """L labels in force: the landed ones, then those of outcome values."""
        return (*self.landed_labels, *outcome_labels(self.outcome_thresholds))

    def grown(
        self,
        *,
        features: Iterable[str] = (),
        cat_columns: Iterable[str] = (),
        num_statistics: dict[str, NumStatistics] | None = None,
        extra_labels: Iterable[str] = (),
        outcome_thresholds: tuple[float, ...] = (),
        model: ModelConfig | None = None,
    ) -> ModelSpec:
        """Return the spec of a child: the union of names, the parent's statistics and thresholds for what it has.

        `model` is the configuration now in force; the fields that shape weights must equal the parent's.
        """
        return dataclasses.replace(
            self,
            features=tuple(sorted({*self.features, *features})),
            cat_columns=tuple(sorted({*self.cat_columns, *cat_columns})),
            num_statistics={**(num_statistics or {}), **self.num_statistics},
            extra_labels=tuple(sorted({*self.extra_labels, *extra_labels})),
            outcome_thresholds=self.outcome_thresholds or outcome_thresholds,
            model=model or self.model,
        )

    def trained(self, *, steps: int) -> ModelSpec:
        """Return the spec after so many more steps."""
        return dataclasses.replace(self, trained_steps=self.trained_steps + steps)

    def to_json(self) -> str:
        """Return the spec as a JSON document."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read what `to_json` wrote. Raises `ModelMismatchError` for a model of an earlier version of the code."""
        document = _with_tuples(json.loads(text))
        if document.get("architecture", 1) != _ARCHITECTURE:
            raise ModelMismatchError(f"the model was built by an earlier version of the code: {_NEW_LINEAGE}")
        document["model"] = ModelConfig(**_with_tuples(document["model"]))
        scales = document["num_statistics"].items()
        document["num_statistics"] = {name: NumStatistics(**scale) for name, scale in scales}
        return cls(**document)


def _with_tuples(document: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in document.items()}


def check_encoder(spec: ModelSpec, *, encoder_version: str) -> None:
    """Raise `EncoderMismatchError` when a model reads other embeddings than the configured encoder writes."""
    if spec.encoder_version != encoder_version:
        raise EncoderMismatchError(
            f"the model reads embeddings of {spec.encoder_version}, the configured encoder writes {encoder_version}: "
            f"{_NEW_LINEAGE}"
        )


def check_numbers(spec: ModelSpec) -> None:
    """Raise `ModelMismatchError` when a model reads other point-in-time numbers than this version of the code computes."""
    if spec.numbers and spec.numbers != NUMBERS:
        raise ModelMismatchError(
            f"the model reads other point-in-time numbers than this version of the code computes: {_NEW_LINEAGE}"
        )


def check_parent(parent: ModelSpec, *, encoder_version: str, model: ModelConfig) -> None:
    """Raise `EncoderMismatchError` or `ModelMismatchError` when the parent cannot be trained on under these settings."""
    check_encoder(parent, encoder_version=encoder_version)
    for name in ("features", "cat_columns", "num_columns", "extra_labels"):
        configured = getattr(model, name)
        lacking = sorted(set(getattr(parent, name)) - set(configured)) if configured else []
        if lacking:
            raise ModelMismatchError(
                f"model.{name} does not name {', '.join(lacking)}, which the parent model has: names are added to a "
                f"model, never taken away; {_NEW_LINEAGE}"
            )
    changed = [
        field.name
        for field in dataclasses.fields(ModelConfig)
        if field.name not in _MAY_CHANGE and getattr(parent.model, field.name) != getattr(model, field.name)
    ]
    if {parent.model.deep_tuning, model.deep_tuning} == {"full", "frozen"}:
        changed.remove("deep_tuning")  # the same weights, trained or not
    if changed:
        raise ModelMismatchError(
            f"the parent model was built with another {', '.join('model.' + name for name in changed)}: {_NEW_LINEAGE}"
        )
