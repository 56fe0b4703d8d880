"""Tables written row by row, for tests of what is read from them: no Spark, no model."""

from datetime import date

import pyarrow as pa

from bahe_tasks.stages.gate_record import record_results
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_writes import replace_partitions
from bahe_tasks.stores.expectations import ExpectationResult


def write_rows(config, table, rows, *, partition="dt"):
    """Replace one partition by the rows, given as dictionaries; columns left out are null. Days of impressions have passed."""
    keys = {row[partition] for row in rows}
    assert len(keys) == 1, "one partition at a time"
    key = keys.pop()
    schema = arrow_schema(table)
    filled = [dict.fromkeys(schema.names) | row for row in rows]
    replace_partitions(
        config.tables_dir,
        table,
        pa.Table.from_pylist(filled, schema=schema),
        predicate=f"{partition} = '{key}'",
        partitions={str(key): {"input_fingerprint": "f", "counts": {}}},
    )
    if table == "impressions":
        accept(config, key)


def refuse(config, day: date) -> None:
    """Record that the day's inputs were refused."""
    failed = ExpectationResult("rows", "failed", observed="0", required="some")
    record_results(config, day, "validate_inputs", [failed], model_version=None, input_fingerprint="f")


def accept(config, day: date) -> None:
    """Record that the day's inputs passed."""
    passed = ExpectationResult("rows", "passed", observed="1", required="some")
    record_results(config, day, "validate_inputs", [passed], model_version=None, input_fingerprint="f")


def impression(day: date, number: int, user: str, item: str, **ends: int) -> dict:
    """One row of `impressions`; `ends` are the sequence ends by text feature."""
    return {
        "dt": day,
        "impression_id": f"m{number}",
        "user_id": user,
        "item_id": item,
        "sequence_ends": list(ends.items()),
    }


def prediction(
    day: date, number: int, user: str, item: str, label: int, probability: float, *, version: int = 1
) -> dict:
    """One row of `progressive_predictions`."""
    return {
        "dt": day,
        "impression_id": f"m{number}",
        "user_id": user,
        "item_id": item,
        "label": label,
        "click_probability": probability,
        "model_version": version,
    }
