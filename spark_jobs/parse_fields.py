"""Typed values out of the text fields of a landed row. A text that cannot be read gives null, never an error."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_ISO_8601 = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?( ?(Z|z|UTC|[+-]\d{2}(:?\d{2})?))?)?$"
_MICROSECONDS = 1_000_000


def present(fields: Column) -> Column:
    """Keep the fields that have a value; null and empty mean absent."""
    return F.map_filter(fields, lambda _, value: value.isNotNull() & (value != ""))


def identifier(text: Column) -> Column:
    """Return an id, null where it is absent or blank."""
    return F.when(F.trim(text) != "", text)


def number(text: Column) -> Column:
    """Return a finite double, null for anything else (words, NaN, infinities, hexadecimal)."""
    return finite(F.when(F.trim(text).rlike(_NUMBER), F.trim(text)).try_cast("double"))


def finite(value: Column) -> Column:
    """Return a double, null for NaN and infinities."""
    return F.when(F.abs(value) < float("inf"), value)


def whole_number(text: Column) -> Column:
    """Return an int, null for anything else; 1.0 is 1."""
    return whole(number(text))


def whole(value: Column) -> Column:
    """Return a double as an int, null where it is none."""
    return F.when(value == F.floor(value), value).try_cast("int")


def instant(text: Column) -> Column:
    """Return a timestamp (UTC, microseconds): ISO 8601, UTC when no zone is given, or epoch seconds; else null."""
    trimmed = F.trim(text)
    seconds = F.when(trimmed.rlike(_NUMBER), trimmed).try_cast("decimal(28,9)")
    from_epoch = F.timestamp_micros(F.floor(seconds * _MICROSECONDS).try_cast("bigint"))
    iso = F.when(trimmed.rlike(_ISO_8601), F.upper(F.translate(trimmed, ",", ".")))
    return F.coalesce(from_epoch, iso.try_cast("timestamp"))


def with_prefix(fields: Column, prefix: str) -> Column:
    """Return the fields named `prefix`NAME as a map from NAME."""
    chosen = F.map_filter(fields, lambda name, _: name.startswith(prefix) & (F.length(name) > len(prefix)))
    return F.transform_keys(chosen, lambda name, _: F.substring(name, len(prefix) + 1, 2**31 - 1))


def has_null(values: Column) -> Column:
    """Whether a map holds a value that could not be read."""
    return F.exists(F.map_values(values), lambda value: value.isNull())


def without(values: Column, *names: str) -> Column:
    """Return a map without the given keys."""
    return F.map_filter(values, lambda name, _: ~name.isin(*names))


def in_key_order(values: Column) -> Column:
    """Return a map as an array of its entries sorted by key, which, unlike a map, can be compared."""
    return F.array_sort(F.map_entries(values))
