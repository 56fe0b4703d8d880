"""However a file is cut into pieces, each of its rows is read once."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_jobs.arrow_columns import text_hashes
from spark_jobs.landed import pieces as cutting
from spark_jobs.landed.pieces import pieces_of
from spark_jobs.landed.sources import judge_piece
from spark_jobs.landing_files import UnreadableFileError

DAY = date(2024, 3, 10)


def event(n: int) -> dict:
    return {"user_id": "u" * (n % 5 + 1), "feature": "f", "occurred_at": "2024-03-10", "text": f"text {n}"}


def texts_read(landing):
    pieces = pieces_of(str(landing.folder), "behavior_events", [DAY])
    judged = [part for piece in pieces for part in judge_piece(piece, late_days=3)]
    return len(pieces), [text for of in judged for text in of.good["text"].to_pylist()]


@pytest.mark.parametrize("size", [1, 7, 50, 81, 82, 83, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_lines_of_json(landing, monkeypatch, size, end):
    monkeypatch.setattr(cutting, "_BYTES_A_PIECE", size)
    landing.rows("behavior_events", DAY, [event(n) for n in range(5)])
    file = next((landing.folder / "behavior_events" / f"dt={DAY}").iterdir())
    content = file.read_text().rstrip("\n").replace("\n", end or "\n") + end
    file.write_bytes(content.encode())
    count, texts = texts_read(landing)
    assert texts == [f"text {n}" for n in range(5)]
    assert count == -(-len(content) // size)


def test_row_groups_of_parquet(landing, monkeypatch):
    monkeypatch.setattr(cutting, "_BYTES_A_PIECE", 1000)
    landing.raw("behavior_events", DAY, "a.parquet", b"")
    file = landing.folder / "behavior_events" / f"dt={DAY}" / "a.parquet"
    pq.write_table(pa.Table.from_pylist([event(n) for n in range(100)]), file, row_group_size=3)
    count, texts = texts_read(landing)
    assert texts == [f"text {n}" for n in range(100)]
    assert 1 < count < 34


def test_a_broken_file_is_named_and_other_formats_are_passed_over(landing):
    landing.raw("behavior_events", DAY, "notes.txt", b"not a format")
    landing.raw("behavior_events", DAY, "_hidden.jsonl", b"{}")
    assert pieces_of(str(landing.folder), "behavior_events", [DAY]) == []
    landing.raw("behavior_events", DAY, "a.parquet", b"PAR1 and no footer")
    with pytest.raises(UnreadableFileError, match=r"a\.parquet cannot be read"):
        pieces_of(str(landing.folder), "behavior_events", [DAY])


def test_equal_texts_have_equal_hashes_wherever_they_stand():
    texts = pa.array([f"user {n % 997}" for n in range(40_000)])
    hashes = text_hashes(texts)
    assert hashes.tolist() == text_hashes(texts.slice(997))[: 40_000 - 997].tolist() + hashes[-997:].tolist()
    assert len(set(hashes.tolist())) == 997
    spread = np.bincount((np.unique(hashes) % np.uint64(8)).astype(np.int64))
    assert spread.min() > 80  # of 125 in each of eight buckets
    some_empty = text_hashes(pa.array(["", "user 1", "", "user 1", ""])).tolist()
    assert some_empty[1::2] == [hashes[1]] * 2
    assert len(set(some_empty[::2])) == 1
    assert text_hashes(pa.array(["", ""])).tolist() == some_empty[:3:2]
