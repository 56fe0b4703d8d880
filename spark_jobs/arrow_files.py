"""Files of rows in Arrow's own format: quick to write, and a reader holds a record batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

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
        """Write rows of the schema; return in how many record batches. All must have the same dictionaries."""
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


class Reader:
    """A file that record batches are read of: all of their columns, or some."""

    def __init__(self, file: str, columns: Sequence[str] | None = None) -> None:
        self._source = open_file(file)
        names = pa.ipc.open_file(self._source).schema.names if columns is not None else []
        fields = [names.index(name) for name in columns or ()]
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        self._columns, self._reader = columns, pa.ipc.open_file(self._source, options=options)

    def __len__(self) -> int:
        return self._reader.num_record_batches

    def read(self, place: int) -> pa.Table:
        """Return the record batch at a place."""
        rows = pa.Table.from_batches([self._reader.get_batch(place)])
        return rows if self._columns is None else rows.select(list(self._columns))

    def close(self) -> None:
        """Close the file."""
        self._source.close()
