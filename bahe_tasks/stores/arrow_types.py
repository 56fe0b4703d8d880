"""Arrow types of the tables: the Spark DDL types of `bahe_tasks.schemas`, as pyarrow reads and writes them.

Unusual: only the types the tables use are known. A type that is not in the list raises, so that a new kind of column
is a decision, not an accident.
"""

from __future__ import annotations

from functools import cache

import pyarrow as pa

from bahe_tasks.schemas import TABLES

_SCALARS = {
    "string": pa.string(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
}


class UnknownTypeError(ValueError):
    """A column type that has no Arrow equivalent here."""


def arrow_type(ddl_type: str) -> pa.DataType:
    """Return the Arrow type of one Spark DDL type; maps and arrays nest. Raises `UnknownTypeError`."""
    kind = ddl_type.strip().lower()
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind.startswith("array<") and kind.endswith(">"):
        return pa.list_(arrow_type(kind[len("array<") : -1]))
    if kind.startswith("map<") and kind.endswith(">"):
        key, comma, value = kind[len("map<") : -1].partition(",")
        if comma:
            return pa.map_(arrow_type(key), arrow_type(value))
    raise UnknownTypeError(f"{ddl_type!r} has no Arrow type in bahe_tasks.stores.arrow_types: add it there")


@cache
def arrow_schema(name: str) -> pa.Schema:
    """Return the Arrow schema of the table called `name`, every column nullable, in the order of the table."""
    return pa.schema([pa.field(column, arrow_type(kind)) for column, kind in TABLES[name].columns])
