"""Work for Spark's tasks: a Python function of a number, and the rows that it returns for all numbers.

Unusual: a task takes many numbers. Spark and its Python worker need some 80 ms of processor time for a task however small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from spark_jobs.landed.contents import batch_of

Work = Callable[[int], Iterable[tuple[Any, ...]]]
"""Number ↦ rows of a few plain columns. Can be pickled. It may run more than once: of a task that is lost nothing counts."""
_TASKS_A_CORE = 4
"""So that cores are done at about the same time."""


def run_in_tasks(spark: SparkSession, work: Work, count: int, ddl: str) -> list[dict[str, Any]]:
    """Run `work` for each number below `count`; return the rows, of the columns in `ddl`, in no particular order."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in list(batches):  # a worker whose input is left unread is not used again
            for number in batch["id"].to_pylist():
                if rows := list(work(number)):
                    yield batch_of(ddl, rows)

    tasks = min(count, _TASKS_A_CORE * spark.sparkContext.defaultParallelism)
    return spark.range(0, count, 1, max(tasks, 1)).mapInArrow(run, ddl).toArrow().to_pylist()
