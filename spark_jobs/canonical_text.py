"""The canonical text and the behavior_key of a text column, as `bahe_tasks.behavior_key` defines them.

Unusual: a text made only of characters that the rule can neither drop nor compose (nothing below but spaces can
change) is folded natively; every other text goes through the Python function itself, each distinct text of a batch
once. Both ways are tested equal on golden vectors and random Unicode.
"""

from __future__ import annotations

import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import StringType

from bahe_tasks import behavior_key as rule

PLAIN_CHARACTERS = " -~\u00a1-\u02ff\u0410-\u044f\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
"""Regex ranges: ASCII, Latin, Cyrillic, Han, Hangul. All are NFC-inert, none is a control or a space but U+0020."""


def is_plain(text: Column) -> Column:
    """Whether a text is made of PLAIN_CHARACTERS alone, as null is."""
    # ASCII by itself first: one range is matched faster than a union. `$` would let a line end pass.
    return F.coalesce(text.rlike(rf"^[ -~]*+[{PLAIN_CHARACTERS}]*+\z"), F.lit(True))


def plain_text(text: Column) -> Column:
    """Return the canonical form of a plain text; null for null, "" when nothing is left."""
    has_run = F.contains(text, F.lit("  "))
    return F.trim(F.when(has_run, F.regexp_replace(text, " {2,}", " ")).otherwise(text))


def odd_text(text: Column) -> Column:
    """Return the canonical form of any text, by the rule itself."""
    return F.arrow_udf(_canonical_texts, StringType())(text)  # type: ignore[call-overload]  # its kind follows from the hints


def canonical_text(text: Column) -> Column:
    """Return the canonical form of a text column; null for null, "" when nothing is left."""
    plain = is_plain(text)
    return F.when(plain, plain_text(text)).otherwise(odd_text(F.when(~plain, text)))


def behavior_key(canonical: Column) -> Column:
    """Return the key of a canonical text: 64 hex digits; null for null and ""."""
    return F.when(canonical != "", F.sha2(canonical, 256))


def _canonical_texts(texts: pa.Array) -> pa.Array:
    encoded = texts.dictionary_encode()
    canonical = [rule.canonical_text(text) for text in encoded.dictionary.to_pylist()]
    return pa.array(canonical, pa.string()).take(encoded.indices)
