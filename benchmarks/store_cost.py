"""Reading the behavior embeddings of a window and gathering rows of them, against a dict and against plain parquet.

    python -m benchmarks.store_cost [--json] [--small] [--keys N] [--folder FOLDER]

A real `behavior_embeddings` table of random vectors, H = 384 float16, is written by the project's own writer in four days;
the window asks for nine in ten of its keys, in no order. *Ours* streams the table into a mapped index
(`stages.embedding_index`). *dict* reads the table by delta-rs and keeps a numpy row for each key. *Parquet* reads the same
rows from one parquet file by `pyarrow.parquet` and looks keys up in a pandas index. Each turns the window's keys into rows
of a matrix (the dict: keys into vectors), then gathers random batches of 16,384 rows into float32 tensors as training does.

Each runs in a process of its own, so that peaks are its own: `peak_mb` is what it held at most that the system cannot
take back, above its start with all loaded; `resident_mb` counts pages of mapped files too, which it can. Figures:
`rows_per_s` gathered from ours (target 1 M), `memory_mb` its peak, `memory_of_dict` and `memory_of_parquet` the share of
theirs, `read_speedup_vs_dict`. FOLDER must have room for four times the vectors (N · 768 bytes); it is emptied again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bahe_tasks.checkpoint import embedding_width, encoder_version
from bahe_tasks.config import Config, EncoderConfig
from bahe_tasks.core.batches import gathered
from bahe_tasks.stages.behavior_digests import digests_of
from bahe_tasks.stages.embedding_index import read_embeddings
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import read_batches
from bahe_tasks.stores.delta_writes import append_rows
from benchmarks.kit.document import Document
from benchmarks.kit.peak_memory import PeakMemory
from benchmarks.kit.program import benchmark_arguments

FIRST, DAYS = date(2024, 3, 1), 4
WRITTEN_AT_ONCE = 100_000
BATCH, SECONDS = 16_384, 3.0
TABLE = "behavior_embeddings"
Gather = Callable[[np.ndarray], torch.Tensor]


def config_of(folder: Path) -> Config:
    """Return the settings of a home in the folder: all-MiniLM-L6-v2."""
    return Config(home=folder, encoder=EncoderConfig(device="cpu"))


def random_keys(count: int, *, seed: int) -> pa.Array:
    """Return `count` keys as any sha256 gives them."""
    return pa.array(np.frombuffer(np.random.default_rng(seed).bytes(32 * count).hex().encode(), "S64").astype(str))


def write_tables(folder: Path, num_keys: int) -> None:
    """Write the table, the same as a parquet file, and the keys of the window."""
    config = config_of(folder)
    version, width = encoder_version(config.encoder), embedding_width(config.encoder.checkpoint)
    rng = np.random.default_rng(0)
    schema = arrow_schema(TABLE)
    columns = pa.schema([schema.field("behavior_key"), schema.field("embedding")])
    keys_file = pa.OSFile(str(folder / "keys.arrow"), "wb")
    with (
        pq.ParquetWriter(folder / "plain.parquet", columns) as plain,
        keys_file,
        pa.ipc.new_file(keys_file, pa.schema([("behavior_key", pa.string())])) as window,
    ):
        for number, start in enumerate(range(0, num_keys, WRITTEN_AT_ONCE)):
            count = min(WRITTEN_AT_ONCE, num_keys - start)
            keys = random_keys(count, seed=number).sort()
            vectors = rng.standard_normal((count, width), np.float32).astype("<f2")
            offsets = pa.py_buffer((np.arange(count + 1) * 2 * width).astype(np.int32))
            blobs = pa.Array.from_buffers(pa.binary(), count, [None, offsets, pa.py_buffer(vectors.tobytes())])
            rows = pa.table(
                {
                    "encoder_version": pa.repeat(version, count),
                    "dt": pa.repeat(pa.scalar(FIRST + timedelta(days=number % DAYS)), count),
                    "behavior_key": keys,
                    "embedding": blobs,
                },
                schema=schema,
            )
            append_rows(config.tables_dir, TABLE, rows, partitions={})
            plain.write_table(rows.select(columns.names))
            wanted = rng.permutation(count)[: max(1, count * 9 // 10)]
            window.write_batch(pa.record_batch([keys.take(pa.array(wanted))], names=["behavior_key"]))


def window_keys(folder: Path) -> Iterator[pa.Array]:
    """Yield the keys of the window in parts."""
    with pa.memory_map(str(folder / "keys.arrow")) as file:
        reader = pa.ipc.open_file(file)
        for n in range(reader.num_record_batches):
            yield reader.get_batch(n)["behavior_key"]


def read_ours(folder: Path) -> tuple[Gather, int]:
    """Build the mapped index and find the window's rows in it."""
    config = config_of(folder)
    version = encoder_version(config.encoder)
    index = read_embeddings(FIRST, config, map(digests_of, window_keys(folder)), encoder_version=version)
    rows = np.concatenate([index.rows_of(keys) for keys in window_keys(folder)])
    return lambda at: torch.from_numpy(gathered(index.vectors, rows[at])).float(), len(rows)


def read_dict(folder: Path) -> tuple[Gather, int]:
    """Read key → vector, and the window's keys."""
    config = config_of(folder)
    wanted = {key for keys in window_keys(folder) for key in keys.to_pylist()}
    of_version = f"encoder_version = '{encoder_version(config.encoder)}'"
    vector_of = {}
    for batch in read_batches(config.tables_dir, TABLE, columns=["behavior_key", "embedding"], partitions=of_version):
        for key, blob in zip(batch["behavior_key"].to_pylist(), batch["embedding"].to_pylist(), strict=True):
            if key in wanted:
                vector_of[key] = np.frombuffer(blob, "<f2")
    window = [key for keys in window_keys(folder) for key in keys.to_pylist()]
    return lambda at: torch.from_numpy(np.stack([vector_of[window[n]] for n in at])).float(), len(window)


def read_parquet(folder: Path) -> tuple[Gather, int]:
    """Read the parquet file whole, and find the window's rows by a pandas index."""
    table = pq.read_table(folder / "plain.parquet")
    index = pd.Index(table["behavior_key"].to_pandas())
    blobs = pa.concat_arrays(table["embedding"].cast(pa.large_binary()).chunks)
    vectors = np.frombuffer(blobs.buffers()[2], "<f2").reshape(len(blobs), -1)
    del table
    rows = np.concatenate([index.get_indexer(keys.to_pandas()) for keys in window_keys(folder)])
    return lambda at: torch.from_numpy(vectors[rows[at]]).float(), len(rows)


VARIANTS = {"ours": read_ours, "dict": read_dict, "parquet": read_parquet}


def measure(name: str, folder: Path, *, seconds: float = SECONDS) -> dict[str, Any]:
    """Read and gather by one variant, in this process."""
    torch.zeros(1).float()
    rng = np.random.default_rng(1)
    with PeakMemory(count_files=False) as memory, PeakMemory() as resident:
        began = perf_counter()
        gather, num_rows = VARIANTS[name](folder)
        read_s = perf_counter() - began
        gathered, took, check = 0, 0.0, 0.0
        while took < seconds:
            at = rng.integers(num_rows, size=BATCH)
            began = perf_counter()
            vectors = gather(at)
            took += perf_counter() - began
            check += float(vectors[0, 0]) if not gathered else 0.0
            gathered += BATCH
    return {
        "variant": name,
        "keys": num_rows,
        "read_s": read_s,
        "rows_per_s": gathered / took,
        "peak_mb": memory.grown_mb,
        "resident_mb": resident.grown_mb,
        "first_number": check,
    }


def run(num_keys: int, folder: Path) -> Document:
    """Write the tables, measure every variant in a process of its own, and remove the tables."""
    document = Document("store_cost")
    with tempfile.TemporaryDirectory(prefix="bahe-store-cost-", dir=folder) as name:
        write_tables(Path(name), num_keys)
        os.sync()  # else the first to read them would share the disk with what is still being written
        for variant in VARIANTS:
            command = [sys.executable, "-m", "benchmarks.store_cost", "--variant", variant, "--folder", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            document.rows.append(json.loads(done.stdout))
    ours, of_dict, of_parquet = document.rows
    document.figures = {
        "rows_per_s": ours["rows_per_s"],
        "memory_mb": ours["peak_mb"],
        "memory_of_dict": ours["peak_mb"] / of_dict["peak_mb"],
        "memory_of_parquet": ours["peak_mb"] / of_parquet["peak_mb"],
        "read_speedup_vs_dict": of_dict["read_s"] / ours["read_s"],
        "keys": float(num_keys),
    }
    return document


def main() -> None:
    parser = benchmark_arguments(__doc__, small="20,000 keys")
    parser.add_argument("--keys", type=int, default=200_000, help="behaviors in the table")
    parser.add_argument("--folder", type=Path, default=None, help="where the tables go; the system's temporary folder")
    parser.add_argument("--variant", choices=VARIANTS, help="measure this one alone, over the tables in FOLDER")
    given = parser.parse_args()
    if given.variant:
        print(json.dumps(measure(given.variant, given.folder)))
        return
    run(20_000 if given.small else given.keys, given.folder).show(as_json=given.json)


if __name__ == "__main__":
    main()
