"""The model a day trains: the parent, grown by what is new in the log, or a fresh one over pre-trained deep layers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.config import Config
from bahe_tasks.core.columns import LABEL, num_statistics, outcome_thresholds, with_outcome_labels
from bahe_tasks.core.ctr_model import BaheCtrModel, grow_model, new_model
from bahe_tasks.core.deep_attention import attends_as_asked
from bahe_tasks.core.llm_split import LlmSplit
from bahe_tasks.core.model_spec import ModelSpec, check_parent
from bahe_tasks.core.point_in_time import NUMBERS, expected_log_odds
from bahe_tasks.core.training_rows import ImpressionRows, sums_read, texts_read
from bahe_tasks.running_sums import BASE_PRIOR, MIN_RATE
from bahe_tasks.stages.topics_start import TextsAt, topics_start
from bahe_tasks.wrong_use import WrongUseError

_LOG = logging.getLogger(__name__)


class PoolingError(WrongUseError):
    """A pooling that would drop all behaviors but one."""


class MissingColumnError(WrongUseError):
    """A text feature, column or label that the configuration names and the log does not have."""


def model_to_train(
    rows: ImpressionRows,
    embeddings: np.ndarray,
    config: Config,
    parent: tuple[BaheCtrModel, ModelSpec] | None,
    *,
    texts_at: TextsAt,
    encoder_version: str,
    seed: int,
) -> tuple[BaheCtrModel, ModelSpec]:
    """Return the untrained model of the day and its spec; `embeddings` (M, H) are those the rows' numbers mean, `texts_at` their texts.

    Text features and columns in force are the configured ones, else the parent's and those of the training rows; extra
    labels are the configured ones. Statistics of a numeric column come from the rows of the day it appeared. Warns of
    sequences.max_behaviors_by_feature for features unknown so far. Raises the errors of `check_parent` when the parent
    was built on another encoder_version or another model, and `MissingColumnError`.
    """
    settings = config.model
    numbers = num_statistics(_chosen(rows.num, settings.num_columns))
    found = {
        "features": settings.features or _filled_features(rows),
        "cat_columns": settings.cat_columns or tuple(rows.cat),
        "num_statistics": numbers,
        "extra_labels": settings.extra_labels,
        "outcome_thresholds": outcome_thresholds(rows.outcome_values) if config.training.outcome_weight else (),
    }
    known = parent[1] if parent else None
    _refuse_missing("features", settings.features, _filled_features(rows), known.features if known else ())
    _refuse_missing("cat_columns", settings.cat_columns, rows.cat, known.cat_columns if known else ())
    _refuse_missing("num_columns", settings.num_columns, rows.num, known.num_columns if known else ())
    _refuse_missing("extra_labels", settings.extra_labels, rows.extra_labels, known.extra_labels if known else ())
    _warn_of_unknown_limits(config.sequences.max_behaviors_by_feature, rows.histories, known.features if known else ())
    if parent is not None:
        check_parent(parent[1], encoder_version=encoder_version, model=settings)
        spec = parent[1].grown(**found, model=settings)  # type: ignore[arg-type]
        rates = _base_rates(rows, spec, set(spec.labels) - set(parent[1].labels))
        model = grow_model(parent[0], spec, seed=seed, base_rates=rates)
    else:
        start = None
        if settings.text_topics:  # before the LLM is loaded to be trained: two at once may be too large
            start = topics_start(texts_read([rows]), embeddings, texts_at, config.encoder, seed=seed)
        split = LlmSplit.load(
            checkpoint_dir(config.encoder.checkpoint),
            config.encoder.num_shallow_layers,
            deep_attention=settings.deep_attention,
        )
        spec = ModelSpec(
            features=(),
            cat_columns=(),
            num_statistics={},
            encoder_version=encoder_version,
            num_shallow_layers=config.encoder.num_shallow_layers,
            llm_config=split.llm_config,
            model=settings,
            numbers=NUMBERS if settings.point_in_time_numbers else (),
            first_rate=_click_rate(rows),
        ).grown(**found)  # type: ignore[arg-type]
        rates = _base_rates(rows, spec, spec.labels) | {LABEL: rate_to_start_at(rows, spec)}
        model = new_model(spec, split.deep, seed=seed, base_rates=rates)
        if start is not None:
            model.topics.start_from(*start, seed=seed)  # type: ignore[union-attr]
        _refuse_first_of_causal(model)
    if settings.head == "din" and not spec.features:
        raise MissingColumnError(
            "model.head din attends to behaviors, but no text feature has one yet: "
            "land behavior_events, or choose another model.head"
        )
    return model, spec


def _base_rates(rows: ImpressionRows, spec: ModelSpec, labels: Iterable[str]) -> dict[str, float]:
    """Return the share of ones among the rows that have the label; one half where none has."""
    found = {LABEL: rows.labels, **with_outcome_labels(rows.extra_labels, rows.outcome_values, spec.outcome_thresholds)}
    present = {name: found[name][~np.isnan(found[name])] for name in labels if name in found}
    return {name: float(column.mean()) if len(column) else 0.5 for name, column in present.items()}


def _click_rate(rows: ImpressionRows) -> float:
    """Return the share of clicks among the rows, smoothed: a first day of one row says little. One half of none."""
    rate = (rows.labels.sum() + BASE_PRIOR[0]) / (len(rows) + BASE_PRIOR[1])
    return float(np.clip(rate, MIN_RATE, 1 - MIN_RATE))


def rate_to_start_at(rows: ImpressionRows, spec: ModelSpec) -> float:
    """Return the rate the head starts from: the base rate, short of what is expected of the rows anyway."""
    rate, expected = _click_rate(rows), 0.0
    if spec.numbers and len(rows):
        expected = float(expected_log_odds(sums_read(rows.sums, len(rows)), spec.first_rate).mean())
    return float(1 / (1 + np.exp(expected) * (1 - rate) / rate))


def _refuse_first_of_causal(model: BaheCtrModel) -> None:
    """Raise `PoolingError` where the first output is pooled and has seen no behavior but its own."""
    first = model.spec.model.behavior_pooling == "first"
    if first and attends_as_asked(
        model.deep, "causal", width=model.deep.width, dtype=torch.float32, device=torch.device("cpu")
    ):
        raise PoolingError(
            "model.behavior_pooling is first, but the deep layers attend causally: the first output knows the oldest "
            "behavior alone; pool by mean, last or attention, or set model.deep_attention to bidirectional"
        )


def _filled_features(rows: ImpressionRows) -> tuple[str, ...]:
    """Return the text features of which at least one row has a history; the others wait for a day that fills them."""
    return tuple(name for name, history in rows.histories.items() if (history.ends > history.starts).any())


def _chosen(columns: Mapping[str, np.ndarray], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {name: column for name, column in columns.items() if not names or name in names}


def _warn_of_unknown_limits(limits: Iterable[str], in_log: Iterable[str], in_parent: Iterable[str]) -> None:
    """Name the features that have a limit and neither training rows nor parent: misspelt, or of days yet to come."""
    unknown = sorted({*limits} - {*in_log} - {*in_parent})
    if unknown:
        _LOG.warning(
            "sequences.max_behaviors_by_feature names %s, which no training row has a history of; the log has %s",
            ", ".join(unknown),
            ", ".join(sorted(in_log)) or "none",
        )


def _refuse_missing(setting: str, configured: Iterable[str], in_log: Iterable[str], in_parent: Iterable[str]) -> None:
    """Raise `MissingColumnError` for configured names that neither the training rows nor the parent have."""
    missing = sorted({*configured} - {*in_log} - {*in_parent})
    if missing:
        raise MissingColumnError(
            f"model.{setting} names {', '.join(missing)}, which no training row has; the log has "
            f"{', '.join(sorted(in_log)) or 'none'}: mend the setting or the log"
        )
