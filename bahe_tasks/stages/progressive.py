"""Progressive validation: the parent's click probabilities for the day, kept in `progressive_predictions`.

These rows are the honest record of quality: no model in them had seen its day, or any label of it.
"""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa

from bahe_tasks.config import Config
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.core.training_rows import ImpressionRows
from bahe_tasks.stages.prediction_metrics import metrics_of
from bahe_tasks.stages.score_rows import score_rows
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.delta_writes import replace_partitions
from bahe_tasks.stores.model_registry import ModelVersion
from bahe_tasks.stores.partition_records import partition_records

_TABLE = "progressive_predictions"


def score_day(
    day: date,
    config: Config,
    rows: ImpressionRows,
    vectors: np.ndarray,
    parent: ModelVersion | None,
    parent_model: tuple[BaheCtrModel, ModelSpec] | None,
    *,
    input_fingerprint: str,
    force: bool = False,
) -> dict[str, float]:
    """Write the parent's predictions for the day's on-time impressions; return their metrics (none without a parent).

    `vectors` are the embeddings the rows point to, (M, H) float16.
    """
    tables_dir = config.tables_dir
    record = partition_records(tables_dir, _TABLE).get(str(day))
    if record is None or record.input_fingerprint != input_fingerprint or force:
        predictions = arrow_schema(_TABLE).empty_table()
        if parent is not None and parent_model is not None and len(rows.labels):
            model, _ = parent_model
            probabilities = score_rows(model, rows, vectors, config)
            predictions = _predictions(day, rows, probabilities, parent.version)
        _write(day, config, predictions, input_fingerprint=input_fingerprint)
    return metrics_of(read_table(tables_dir, _TABLE, partitions=f"dt = '{day}'"))


def clear_predictions(day: date, config: Config, *, input_fingerprint: str) -> None:
    """Leave no predictions of a day that has no impressions any more."""
    record = partition_records(config.tables_dir, _TABLE).get(str(day))
    if record is not None and record.counts["rows"]:
        _write(day, config, arrow_schema(_TABLE).empty_table(), input_fingerprint=input_fingerprint)


def _write(day: date, config: Config, predictions: pa.Table, *, input_fingerprint: str) -> None:
    replace_partitions(
        config.tables_dir,
        _TABLE,
        predictions,
        predicate=f"dt = '{day}'",
        partitions={str(day): {"input_fingerprint": input_fingerprint, "counts": {"rows": predictions.num_rows}}},
    )


def _predictions(day: date, rows: ImpressionRows, probabilities: np.ndarray, model_version: int) -> pa.Table:
    count = len(rows.labels)
    return pa.table(
        {
            "dt": pa.repeat(pa.scalar(day), count),
            "impression_id": pa.array(rows.impression_ids, pa.string()),
            "user_id": pa.array(rows.user_ids, pa.string()),
            "item_id": pa.array(rows.item_ids, pa.string()),
            "label": pa.array(rows.labels.astype(np.int32)),
            "click_probability": pa.array(probabilities.astype(np.float64)),
            "model_version": pa.repeat(pa.scalar(model_version, pa.int32()), count),
        },
        schema=arrow_schema(_TABLE),
    )
