"""What is done with the rows of each source of the landing contract, and its pieces read and judged by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from bahe_tasks.stores.arrow_types import arrow_schema
from spark_jobs.arrow_columns import whole
from spark_jobs.landed.canonical_texts import behavior_keys
from spark_jobs.landed.earlier_impressions import StoredOf, late_since
from spark_jobs.landed.judge import REFUSED, Judged
from spark_jobs.landed.judge_events import EVENT_CONTENT, judge_events
from spark_jobs.landed.judge_impressions import IMPRESSION_CONTENT, judge_impressions
from spark_jobs.landed.judge_items import ITEM_CONTENT, judge_items
from spark_jobs.landed.pieces import Piece
from spark_jobs.landed.read_csv import read_csv
from spark_jobs.landed.read_json_lines import read_json_lines
from spark_jobs.landed.read_parquet import read_parquet
from spark_jobs.landed.settle import Settled, settle_events, settle_impressions, settle_items
from spark_jobs.landing_files import UnreadableFileError

_READERS = {".jsonl": read_json_lines, ".csv": read_csv, ".parquet": read_parquet}


class Source(NamedTuple):
    """One source."""

    judge: Callable[..., Judged]
    settle: Callable[[pa.Table, StoredOf], Settled]
    content: tuple[str, ...]
    """The columns of a settled row, beside its copies and the key of its text."""
    equal_share: str
    """A column that rows which may be equal, or contradict each other, have in common. Of events it is the text, so that its
    key is made once and it stands in one file (`derived.met_behaviors`)."""
    text_and_key: tuple[str, str] | None
    """The column that is a behavior, and that of its key."""


LANDED: dict[str, Source] = {
    "behavior_events": Source(judge_events, settle_events, EVENT_CONTENT, "text", ("text", "behavior_key")),
    "items": Source(judge_items, settle_items, ITEM_CONTENT, "item_id", ("title", "title_key")),
    "impressions": Source(
        judge_impressions, settle_impressions, ("dt", "impression_id", *IMPRESSION_CONTENT), "impression_id", None
    ),
}


def judge_piece(piece: Piece, *, late_days: int) -> Iterator[Judged]:
    """Read a piece and judge its rows, part by part. Raises `UnreadableFileError`."""
    try:
        for rows in _READERS[piece.file[piece.file.rindex(".") :]](piece):
            yield LANDED[piece.source].judge(rows, late_days=late_days)
    except (pa.ArrowException, OSError, UnicodeError, OverflowError) as error:
        raise UnreadableFileError.of(piece.file, error) from error


def settle_rows(source: str, good: Sequence[pa.Table], refused: Sequence[pa.Table], *, stored_of: StoredOf) -> Settled:
    """Settle the good rows of a source that may be equal to each other, and put the refused ones together.

    What is kept has the key of its text as well, which is made here alone; text and key are dictionaries.
    """
    kinds = arrow_schema(source)
    schema = pa.schema([*(kinds.field(name) for name in LANDED[source].content), pa.field("copies", pa.int64())])
    filled = [rows for rows in good if len(rows)]
    refused = [REFUSED.empty_table(), *refused]
    if not filled:
        none = schema.empty_table()
        return Settled(_with_key(source, none), pa.concat_tables(refused), none)
    kept, contradictory, again = LANDED[source].settle(pa.concat_tables(filled), stored_of)
    return Settled(_with_key(source, kept.cast(schema)), pa.concat_tables([*refused, contradictory]), again)


def _with_key(source: str, rows: pa.Table) -> pa.Table:
    named = LANDED[source].text_and_key
    if named is None:
        return rows
    text, key = named
    coded = whole(rows[text].dictionary_encode())  # together, the texts of equal rows may be too long for an array
    keys = pa.DictionaryArray.from_arrays(coded.indices, behavior_keys(coded.dictionary))
    return rows.set_column(rows.schema.get_field_index(text), text, coded).append_column(key, keys)


def seen(piece: Piece, judged: Judged) -> dict[str, Any]:
    """Return how many rows of a piece were read, the columns that the landing contract does not know, and `late_since`."""
    since = late_since(judged.good) if piece.source == "impressions" else None
    return {
        "dt": str(piece.dt),
        "landed": len(judged.rows),
        "unknown": sorted(judged.unknown),
        "late_since": since and str(since),
    }
