"""Values as bytes in rows of few columns: how they pass Spark, which need not know what they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from bahe_tasks.stores.arrow_types import arrow_type


def as_json(value: Any) -> bytes:
    """Return a value as json."""
    return json.dumps(value).encode()


def batch_of(ddl: str, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    """Return rows, one at least, with the columns of a DDL string of plain types."""
    columns = [column.split(" ") for column in ddl.split(", ")]
    values = zip(*rows, strict=True)
    arrays = [pa.array(of, arrow_type(kind)) for (_, kind), of in zip(columns, values, strict=True)]
    return pa.record_batch(arrays, names=[name for name, _ in columns])
