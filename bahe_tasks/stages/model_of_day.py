"""The model a day trains: the parent, grown by what is new in the log, or a fresh one over pre-trained deep layers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.config import Config
from bahe_tasks.core.batches import ImpressionRows
from bahe_tasks.core.ctr_model import BaheCtrModel, grow_model, new_model
from bahe_tasks.core.llm_split import LlmSplit
from bahe_tasks.core.model_spec import ModelSpec, NumStatistics, check_parent, num_statistics


def model_to_train(
    rows: ImpressionRows,
    config: Config,
    parent: tuple[BaheCtrModel, ModelSpec] | None,
    *,
    encoder_version: str,
    seed: int,
) -> tuple[BaheCtrModel, ModelSpec]:
    """Return the untrained model of the day and its spec.

    Text features and columns in force are the configured ones, else the parent's and those of the training rows.
    Statistics of a numeric column come from the rows of the day it appeared. Raises the errors of `check_parent` when
    the parent was built on another encoder_version or another model.
    """
    features = config.model.features or _filled_features(rows)
    cat_columns = config.model.cat_columns or tuple(rows.cat)
    numbers = num_statistics(_chosen(rows.num, config.model.num_columns))
    if parent is not None:
        model, spec = parent
        check_parent(spec, encoder_version=encoder_version, model=config.model)
        spec = spec.grown(features=features, cat_columns=cat_columns, num_statistics=numbers, model=config.model)
        return grow_model(model, spec, seed=seed), spec
    return _fresh(rows, config, features, cat_columns, numbers, encoder_version=encoder_version, seed=seed)


def _fresh(
    rows: ImpressionRows,
    config: Config,
    features: tuple[str, ...],
    cat_columns: tuple[str, ...],
    numbers: dict[str, NumStatistics],
    *,
    encoder_version: str,
    seed: int,
) -> tuple[BaheCtrModel, ModelSpec]:
    split = LlmSplit.load(checkpoint_dir(config.encoder.checkpoint), config.encoder.num_shallow_layers)
    spec = ModelSpec(
        features=tuple(sorted(features)),
        cat_columns=tuple(sorted(cat_columns)),
        num_statistics=numbers,
        encoder_version=encoder_version,
        num_shallow_layers=config.encoder.num_shallow_layers,
        llm_config=split.llm_config,
        model=config.model,
    )
    return new_model(spec, split.deep, seed=seed, base_rate=float(rows.labels.mean())), spec


def _filled_features(rows: ImpressionRows) -> tuple[str, ...]:
    """Return the text features of which at least one row has a history; the others wait for a day that fills them."""
    return tuple(name for name, history in rows.histories.items() if (history.ends > history.starts).any())


def _chosen(columns: Mapping[str, np.ndarray], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {name: column for name, column in columns.items() if not names or name in names}
