"""The canonical texts of a column, as `bahe_tasks.behavior_key` defines them.

Unusual: a text made only of characters that the rule can neither drop nor compose (nothing but spaces can change in it) is
folded by Arrow; every other one by the Python function itself, each distinct text once. Both ways are tested equal on golden
vectors and random Unicode.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks import behavior_key as rule
from spark_jobs.landed.parse_values import by_distinct

PLAIN_CHARACTERS = " -~\u00a1-\u02ff\u0410-\u044f\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
"""Regex ranges: ASCII, Latin, Cyrillic, Han, Hangul. All are NFC-inert, none is a control or a space but U+0020."""


def canonical_texts(texts: pa.Array) -> pa.Array:
    """Return the canonical form of each text; null for null, "" when nothing is left."""
    folded = pc.utf8_trim(_single_spaced(texts), " ")
    is_odd = _are_odd(texts)
    if not is_odd.any():
        return folded
    odd = texts.filter(pa.array(is_odd))
    return pc.replace_with_mask(folded, pa.array(is_odd), by_distinct(odd, rule.canonical_text, pa.string()))


def behavior_keys(canonical: pa.Array) -> pa.Array:
    """Return the key of each canonical text: 64 hex digits. None may be null or ""."""
    digits = rule.keys_of_canonical(canonical.cast(pa.binary()).to_pylist())
    ends = np.arange(len(canonical) + 1, dtype=np.int32) * rule.KEY_DIGITS
    return pa.StringArray.from_buffers(len(canonical), pa.py_buffer(ends), pa.py_buffer(digits))


def _are_odd(texts: pa.Array) -> np.ndarray:
    """Return which texts have a character that is not plain, (R,) bool."""
    offsets, values = texts.buffers()[1:]
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    characters = np.frombuffer(values or b"", np.uint8)[bounds[0] : bounds[-1]]
    beyond_ascii = (characters < ord(" ")) | (characters > ord("~"))
    is_odd, there = np.zeros(len(texts), bool), np.diff(bounds) > 0
    is_odd[there] = np.logical_or.reduceat(beyond_ascii, (bounds[:-1] - bounds[0])[there])
    suspects = texts.filter(pa.array(is_odd))
    is_plain = pc.match_substring_regex(suspects, rf"^[{PLAIN_CHARACTERS}]*\z")
    is_odd[is_odd] = np.asarray(pc.invert(pc.fill_null(is_plain, True)))
    return is_odd


def _single_spaced(texts: pa.Array) -> pa.Array:
    has_run = pc.fill_null(pc.match_substring(texts, "  "), False)
    if not pc.any(has_run).as_py():
        return texts
    return pc.replace_with_mask(texts, has_run, pc.replace_substring_regex(texts.filter(has_run), " {2,}", " "))
