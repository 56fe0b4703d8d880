"""The words of a title and the keys of running sums, as `bahe_tasks.running_sums` defines them.

Unusual: a text of ASCII alone is cut natively; every other one goes through the Python function itself, each distinct
text of a batch once. Both ways are tested equal on random Unicode.
"""

from __future__ import annotations

import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StringType

from bahe_tasks import running_sums as rule

_HEX_DIGITS = 15  # of sha256: 60 bits, so that a key is a positive bigint


def title_tokens(text: Column) -> Column:
    """Return the distinct words of a text column, array<string>; null for null."""
    plain = text.rlike(r"^[\x00-\x7f]*\z")
    words = F.array_distinct(F.regexp_extract_all(F.lower(text), F.lit("[a-z0-9]+"), F.lit(0)))
    by_rule = F.arrow_udf(_title_tokens, ArrayType(StringType()))  # type: ignore[call-overload]  # its kind follows from the hints
    return F.when(plain, F.slice(words, 1, rule.MAX_TITLE_TOKENS)).otherwise(by_rule(F.when(~plain, text)))


def state_key(scope: str, *ids: Column) -> Column:
    """Return the key of a user, item, token or pair, bigint; null where one of its ids is."""
    digest = F.sha2(F.concat_ws("\0", F.lit(scope), *ids), 256)
    key = F.conv(F.substring(digest, 1, _HEX_DIGITS), 16, 10).cast("bigint")
    present = F.lit(True)
    for part in ids:
        present = present & part.isNotNull()
    return F.when(present, key)


def _title_tokens(texts: pa.Array) -> pa.Array:
    encoded = texts.dictionary_encode()
    tokens = [rule.title_tokens(text) for text in encoded.dictionary.to_pylist()]
    return pa.array(tokens, pa.list_(pa.string())).take(encoded.indices)
