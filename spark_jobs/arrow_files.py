"""Files of rows in Arrow's own format: nothing is coded to be written, and a reader holds a record batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from spark_jobs.landing_files import open_file, write_to

ROWS_A_BATCH = 1 << 17
_WRITTEN = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


class Writer:
    """A new file that rows are written to."""

    def __init__(self, file: str, schema: pa.Schema) -> None:
        self.file, self.schema = file, schema
        self._sink = write_to(file)
        self._writer = pa.ipc.new_file(self._sink, schema, options=_WRITTEN)

    def write(self, rows: pa.Table) -> int:
        """Write rows of the schema; return in how many record batches."""
        batches = rows.combine_chunks().to_batches(ROWS_A_BATCH)
        for batch in batches:
            self._writer.write_batch(batch)
        return len(batches)

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
        self._sink.close()


def write_rows(file: str, rows: pa.Table) -> None:
    """Write rows to a new file."""
    writer = Writer(file, rows.schema)
    writer.write(rows)
    writer.close()


def batches_of(
    file: str, *, columns: Sequence[str] | None = None, places: Iterable[int] | None = None
) -> Iterator[pa.Table]:
    """Yield record batches of a file: all of them, or those at some places; of them all columns, or some."""
    with open_file(file) as source:
        names = pa.ipc.open_file(source).schema.names if columns is not None else []
        options = pa.ipc.IpcReadOptions(
            included_fields=[names.index(name) for name in columns or ()], use_threads=False
        )
        reader = pa.ipc.open_file(source, options=options)
        for place in range(reader.num_record_batches) if places is None else places:
            rows = pa.Table.from_batches([reader.get_batch(place)])
            yield rows if columns is None else rows.select(list(columns))
