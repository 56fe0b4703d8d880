"""Small files are read once; what is read is what a data set of all files gives."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from bahe_tasks.stores import held_files
from bahe_tasks.stores.held_files import small_files_held, with_held

SCHEMA = pa.schema([("dt", pa.string()), ("item_id", pa.string()), ("value", pa.float64())])
ROWS = {"2024-01-01": 3, "2024-01-02": 20_000, "2024-01-03": 0, "2024-01-04": 5}
FILTERS = [None, pc.field("item_id") == "1", (pc.field("dt") == "2024-01-04") | (pc.field("value") > 0.5)]


@pytest.fixture
def held():
    with small_files_held():
        yield held_files._held


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A file a day; the second one is too large to be held."""
    monkeypatch.setattr(held_files, "_LARGEST_FILE", 20_000)
    for day, count in ROWS.items():
        folder = tmp_path / f"dt={day}"
        folder.mkdir()
        ids = [str(n) for n in range(count)]
        rows = pa.table({"item_id": ids, "value": pa.array([n / count for n in range(count)], pa.float64())})
        pq.write_table(
            rows.cast(pa.schema([SCHEMA.field(name) for name in rows.column_names])), folder / "part.parquet"
        )
    return tmp_path


def opened(folder):
    """As `delta_tables` opens a table: files named from its root, their day known of their folder."""
    system = pafs.SubTreeFileSystem(str(folder), pafs.LocalFileSystem())
    parquet = ds.ParquetFileFormat()
    fragments = [
        parquet.make_fragment(f"dt={day}/part.parquet", system, partition_expression=pc.field("dt") == day)
        for day in ROWS
    ]
    return ds.FileSystemDataset(fragments, SCHEMA, parquet, system)


def read(folder, uri=None, *, columns=("item_id",), filters=None):
    parts = with_held(opened(folder), uri or str(folder))
    return pa.concat_tables([part.to_table(columns=list(columns), filter=filters) for part in parts])


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("columns", [["dt", "item_id", "value"], ["value", "dt"], ["item_id"]], ids=str)
def test_rows_are_those_of_all_files_in_their_order_read_anew_and_again(files, held, columns, filters):
    expected = opened(files).to_table(columns=columns, filter=filters)
    for _ in range(2):
        assert read(files, columns=columns, filters=filters).equals(expected)


def test_small_files_are_held_and_large_ones_are_not(files, held):
    read(files)
    assert set(held.rows) == {f"{files}/dt={day}/part.parquet" for day, count in ROWS.items() if count < 10}
    for day in ROWS:
        if ROWS[day] < 10:
            (files / f"dt={day}" / "part.parquet").write_bytes(b"is not read again")
    assert len(read(files)) == sum(ROWS.values())


def test_nothing_is_held_unless_asked_for_nor_afterwards(files):
    (read_anew,) = with_held(opened(files), str(files))
    assert isinstance(read_anew, ds.FileSystemDataset)
    with small_files_held():
        read(files)
        with small_files_held():
            assert held_files._held.rows
        assert held_files._held.rows
    assert held_files._held is None


def test_another_table_has_its_own(files, held):
    read(files)
    pq.write_table(pa.table({"item_id": ["other"], "value": [1.0]}), files / "dt=2024-01-01" / "part.parquet")
    found = read(files, "elsewhere", filters=pc.field("dt") == "2024-01-01")
    assert found["item_id"].to_pylist() == ["other"]


def test_a_read_holds_no_more_small_files_than_it_may(files, held, monkeypatch):
    sizes = sorted((files / f"dt={day}" / "part.parquet").stat().st_size for day, n in ROWS.items() if n < 10)
    monkeypatch.setattr(held_files, "_MOST_AT_ONCE", sizes[-1] + sizes[0])
    assert len(read(files)) == sum(ROWS.values())
    assert 0 < len(held.rows) < 3


def test_rows_that_are_too_many_to_be_held_are_read_all_the_same(files, held, monkeypatch):
    monkeypatch.setattr(held_files, "_MOST_BYTES", 1)
    for _ in range(2):
        assert len(read(files)) == sum(ROWS.values())
    assert not any(rows.nbytes for rows in held.rows.values())


def test_a_missing_file_is_named(files, held):
    (files / "dt=2024-01-04" / "part.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="2024-01-04"):
        read(files)


def test_a_table_without_files(files, held):
    empty = ds.FileSystemDataset([], SCHEMA, ds.ParquetFileFormat(), pafs.LocalFileSystem())
    assert with_held(empty, str(files)) == []
