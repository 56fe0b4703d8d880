"""Times, numbers and ids out of texts. A text that cannot be read gives null, never an error.

Unusual: what most rows look like is read by Arrow, all of a column at once; every other text by a Python function, once a
distinct text. Both ways are tested equal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_ISO_8601 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?(?: ?(Z|z|UTC|[+-]\d{2}(?::?\d{2})?))?)?",
    re.ASCII,
)
_USUAL_NUMBER = r"^-?\d+(\.\d+)?$"
_USUAL_TIME = r"^[12]\d{3}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?Z?$"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRUTHS = {"true": 1.0, "false": 0.0}
_LEAST_INT, _GREATEST_INT = -(2**63), 2**63 - 1
_MICROSECONDS = 1_000_000


def identifiers_of(texts: pa.Array) -> pa.Array:
    """Return ids, null where one is absent or blank."""
    return nulled(texts, pc.equal(pc.utf8_trim(texts, " "), ""))


def numbers_of(texts: pa.Array) -> pa.Array:
    """Return finite doubles, null for anything else (words, NaN, infinities, hexadecimal)."""
    return _read(texts, _USUAL_NUMBER, _usual_numbers, number_of, pa.float64())


def labels_of(texts: pa.Array) -> pa.Array:
    """Return doubles as `numbers_of`, and 1 for true, 0 for false."""
    return _read(texts, _USUAL_NUMBER, _usual_numbers, label_of, pa.float64())


def finite(doubles: pa.Array) -> pa.Array:
    """Return doubles, null for what is none."""
    return pc.if_else(pc.is_finite(doubles), doubles, pa.scalar(None, pa.float64()))


def instants_of(texts: pa.Array) -> pa.Array:
    """Return microseconds since 1970 UTC, int64: of ISO 8601, UTC when no zone is given, or of epoch seconds; else null."""

    def usual(times: pa.Array) -> pa.Array:
        return pc.utf8_rtrim(times, "Z").cast(pa.timestamp("us")).cast(pa.int64())

    return _read(texts, _USUAL_TIME, usual, instant_of, pa.int64())


def number_of(text: str) -> float | None:
    """Return a finite number, else None."""
    text = text.strip(" ")
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


def label_of(text: str) -> float | None:
    """Return a finite number, 1 for true and 0 for false in whatever case, else None."""
    return _TRUTHS.get(text.strip(" ").lower(), number_of(text))


def instant_of(text: str) -> int | None:
    """Return microseconds since 1970 UTC, else None."""
    text = text.strip(" ")
    if _NUMBER.fullmatch(text):
        try:
            seconds = Decimal(text)
        except InvalidOperation:  # an exponent of twenty digits
            return None
        if seconds.adjusted() > 18:
            return None
        micros = math.floor(seconds * _MICROSECONDS)
        return micros if _LEAST_INT <= micros <= _GREATEST_INT else None
    match = _ISO_8601.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    fraction, zone = match[7] or "", match[8]
    try:
        time = datetime(year, month, day, hour, minute, second, int(f"{fraction:0<6}"[:6]), tzinfo=_zone(zone))
    except ValueError:
        return None
    return (time - _EPOCH) // timedelta(microseconds=1)


def whole_numbers(doubles: pa.Array) -> pa.Array:
    """Return doubles as int32, null where one is none."""
    values = np.asarray(pc.fill_null(doubles, math.nan))
    is_whole = (values == np.floor(values)) & (values >= -(2**31)) & (values < 2**31)
    return pa.array(np.where(is_whole, values, 0).astype(np.int32), mask=~is_whole)


def by_distinct(texts: pa.Array, function: Callable[[str], Any], kind: pa.DataType) -> pa.Array:
    """Return what the function makes of each text, called once a distinct text; null for null."""
    encoded = texts.dictionary_encode()
    return pa.array([function(text) for text in encoded.dictionary.to_pylist()], kind).take(encoded.indices)


def nulled(texts: pa.Array, chosen: pa.Array) -> pa.Array:
    """Return the texts with null where `chosen` (R,) bool; null chooses none."""
    chosen = pc.fill_null(chosen, False)
    return pc.if_else(chosen, pa.scalar(None, pa.string()), texts) if pc.any(chosen).as_py() else texts


def _zone(name: str | None) -> timezone:
    if name is None or name in ("Z", "z", "UTC"):
        return UTC
    digits = name[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return timezone(-offset if name[0] == "-" else offset)


def _usual_numbers(texts: pa.Array) -> pa.Array:
    return finite(texts.cast(pa.float64()))


def _read(
    texts: pa.Array,
    pattern: str,
    usual: Callable[[pa.Array], pa.Array],
    one: Callable[[str], Any],
    kind: pa.DataType,
) -> pa.Array:
    is_usual = pc.fill_null(pc.match_substring_regex(texts, pattern), False)
    is_other = pc.and_not(texts.is_valid(), is_usual)
    nothing = pa.scalar(None, pa.string())
    try:
        read = usual(pc.if_else(is_usual, texts, nothing))
    except pa.ArrowInvalid:  # the thirtieth of February
        return by_distinct(texts, one, kind)
    if not pc.any(is_other).as_py():
        return read
    return pc.if_else(is_usual, read, by_distinct(pc.if_else(is_usual, nothing, texts), one, kind))
