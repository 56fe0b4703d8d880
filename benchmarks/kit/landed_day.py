"""A landed day of any size, in parquet, and a store of known behaviors of any size: what the cost of dedup is taken of.

Made by arrays, not row by row: ten million events take a minute. Texts are drawn by Zipf's law out of a catalogue of a
quarter as many texts as events; one text in fifty needs the Python rule (an accent that is a character of its own), two
events in a hundred have their text with two spaces, one in a hundred is an exact copy of another, one in a hundred is
broken in one of seven ways, and one user has 5 % of all events. Every seed gives the same day.

Unusual: the embeddings of the store are two bytes wide. The job reads their keys only, and a store of 20 M whole ones
would be 15 GB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bahe_tasks.behavior_key import canonical_text
from bahe_tasks.stores.delta_writes import append_rows, replace_partitions

DAY = date(2024, 3, 10)
ENCODER_VERSION = "benchmark"
HEAVY_USER_SHARE = 0.05
KNOWN_OF_TEN = 9
"""Of ten texts of the catalogue so many are in a store that is large enough."""

_COPY_SHARE, _TWO_SPACES_SHARE, _BROKEN_SHARE = 0.01, 0.02, 0.01
_EVENTS_A_TEXT, _EVENTS_A_USER, _EVENTS_AN_IMPRESSION = 4, 20, 10
_ROWS_A_FILE = 1_000_000
_ROWS_A_GROUP = 100_000  # as DuckDB writes; each engine shares a file out by them
_STORE_FILES = 20
_FEATURES = pa.array(["searches", "bills", "visits"])
_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class LandedDay:
    """Where the day is, and how many rows of each source it has."""

    landing: Path
    num_events: int
    num_impressions: int
    num_texts: int
    """Texts in the catalogue; the day meets some of them."""


def land_day(landing: Path, *, num_events: int, seed: int = 0) -> LandedDay:
    """Write behavior_events, impressions and items of DAY under `landing`."""
    rng = np.random.default_rng(seed)
    num_texts = max(num_events // _EVENTS_A_TEXT, 10)
    num_users = max(num_events // _EVENTS_A_USER, 2)
    num_impressions = max(num_events // _EVENTS_AN_IMPRESSION, 1)
    for part, count in enumerate(_parts(num_events)):
        events = _events(count, num_texts=num_texts, num_users=num_users, rng=rng)
        copies = events.take(rng.integers(0, count, int(count * _COPY_SHARE)))
        rows = pa.concat_tables([events.slice(copies.num_rows), copies])
        _write(landing, "behavior_events", part, rows)
    for part, count in enumerate(_parts(num_impressions)):
        rows = _impressions(count, num_texts=num_texts, num_users=num_users, part=part, rng=rng)
        _write(landing, "impressions", part, rows)
    numbers = np.arange(0, num_texts, 10)
    items = {
        "item_id": _numbered("i", numbers),
        "title": texts_of(numbers),
        "updated_at": _times(np.zeros(len(numbers))),
    }
    _write(landing, "items", 0, pa.table(items))
    return LandedDay(landing, num_events, num_impressions, num_texts)


def fill_store(tables_dir: Path, *, num_keys: int, num_texts: int) -> None:
    """Write `num_keys` known behaviors: KNOWN_OF_TEN of ten texts of the catalogue, then texts no day has.

    They come as a store grows: appended in parts, each with keys from the whole range.
    """
    if not num_keys:
        return
    for part, numbers in enumerate(np.array_split(np.arange(num_keys), _STORE_FILES)):
        of_catalogue = numbers[numbers < num_texts * KNOWN_OF_TEN // 10]
        known = of_catalogue // KNOWN_OF_TEN * 10 + of_catalogue % KNOWN_OF_TEN
        texts = [canonical_text(text) for text in texts_of(known).to_pylist()]
        texts += [f"a text of an earlier day, number {n}" for n in numbers[len(of_catalogue) :].tolist()]
        keys = pa.array([hashlib.sha256(text.encode()).hexdigest() for text in texts])
        append_rows(tables_dir, "atomic_behaviors", pa.table({"behavior_key": keys, "text": texts}), partitions={})
        dt = DAY - timedelta(days=_STORE_FILES - part)
        replace_partitions(
            tables_dir,
            "behavior_embeddings",
            pa.table(
                {
                    "encoder_version": pa.repeat(ENCODER_VERSION, len(keys)),
                    "dt": pa.repeat(pa.scalar(dt), len(keys)),
                    "behavior_key": keys,
                    "embedding": pa.repeat(pa.scalar(b"\0\0"), len(keys)),
                }
            ),
            predicate=f"encoder_version = '{ENCODER_VERSION}' AND dt = '{dt}'",
            partitions={},
        )


def texts_of(numbers: np.ndarray) -> pa.Array:
    """Return the landed texts of these numbers of the catalogue, each with its number in it."""
    words = pa.array([f"{a}{b}{c}" for a in _ONSETS for b in _MIDDLES for c in _ENDS])
    drawn = [words.take(pa.array(numbers * factor % len(words))) for factor in (7919, 104729, 1299709)]
    ending = pa.array(["", " cafe\u0301"]).take(pa.array((numbers % 50 == 7).astype(np.int64)))
    number = pc.cast(pa.array(numbers), pa.string())
    return pc.binary_join_element_wise(*drawn, pc.binary_join_element_wise(number, ending, ""), " ")


_ONSETS = ("ba", "cor", "du", "fel", "gri", "hu", "jo", "kla", "len", "mar", "no", "pri", "qua", "ro", "sel", "tu")
_MIDDLES = ("", "da", "li", "mo", "ne", "ri", "ta", "vo")
_ENDS = ("n", "s", "t", "ra", "le", "um", "ic", "or")


def _events(count: int, *, num_texts: int, num_users: int, rng: np.random.Generator) -> pa.Table:
    numbers = _zipf(count, num_texts, rng)
    two_spaces = pa.array(rng.random(count) < _TWO_SPACES_SHARE)
    texts = texts_of(numbers)
    feature = rng.integers(0, len(_FEATURES), count)
    value = np.round(rng.lognormal(3.0, 1.0, count), 2)
    way = np.where(rng.random(count) < _BROKEN_SHARE, rng.integers(0, 7, count), -1)
    day = rng.random(count) + np.select([way == 0, way == 1], [1, -10], 0)
    return pa.table(
        {
            "user_id": _instead(_users(count, num_users, rng), " ", way == 2),
            "feature": _instead(_FEATURES.take(pa.array(feature)), None, way == 3),
            "occurred_at": _instead(_times(day), None, way == 4),
            "text": _instead(pc.if_else(two_spaces, pc.replace_substring(texts, " ", "  "), texts), "  ", way == 5),
            "item_id": _numbered("i", numbers),
            "value": _instead(pa.array(value, mask=feature == 0), float("nan"), way == 6),
        }
    )


def _instead(column: pa.Array, value: str | float | None, where: np.ndarray) -> pa.Array:
    return pc.if_else(pa.array(where), pa.scalar(value, column.type), column)


def _impressions(count: int, *, num_texts: int, num_users: int, part: int, rng: np.random.Generator) -> pa.Table:
    return pa.table(
        {
            "impression_id": _numbered(f"{part}-", np.arange(count)),
            "user_id": _users(count, num_users, rng),
            "item_id": _numbered("i", _zipf(count, num_texts, rng) // 10 * 10),
            "shown_at": _times(rng.random(count)),
            "label": pa.array((rng.random(count) < 0.3).astype(np.int64)),
            "cat_device": pa.array(["phone", "desktop"]).take(pa.array(rng.integers(0, 2, count))),
            "num_position": pa.array(rng.integers(1, 6, count)),
        }
    )


def _zipf(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return numbers below `size`, number n about as often as 1 / (n + 1)."""
    return np.minimum(np.power(float(size), rng.random(count)).astype(np.int64) - 1, size - 1)


def _users(count: int, num_users: int, rng: np.random.Generator) -> pa.Array:
    numbers = 1 + (rng.random(count) ** 2 * (num_users - 1)).astype(np.int64)
    return _numbered("u", np.where(rng.random(count) < HEAVY_USER_SHARE, 0, numbers))


def _times(share_of_day: np.ndarray) -> pa.Array:
    start = np.datetime64(DAY.isoformat(), "us").astype(np.int64)
    return pa.array(start + (share_of_day * _DAY_US).astype(np.int64), pa.timestamp("us", "UTC"))


def _numbered(letter: str, numbers: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(letter, pc.cast(pa.array(numbers), pa.string()), "")


def _parts(count: int) -> Iterator[int]:
    for start in range(0, count, _ROWS_A_FILE):
        yield min(_ROWS_A_FILE, count - start)


def _write(landing: Path, source: str, part: int, rows: pa.Table) -> None:
    folder = landing / source / f"dt={DAY}"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, folder / f"part-{part:05d}.parquet", row_group_size=_ROWS_A_GROUP)
