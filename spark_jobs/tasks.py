"""Work for Spark's tasks: a Python function of numbers, and the rows that it returns for all of them.

Unusual: a task takes many numbers. Spark and its Python worker need some 80 ms of processor time for a task however small.
So a task that is lost repeats all of its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from spark_jobs.landed.contents import batch_of

Work = Callable[[Sequence[int]], Iterable[tuple[Any, ...]]]
"""The numbers of a task ↦ rows of a few plain columns. Can be pickled. It may run more than once: of a task that is lost
nothing counts."""
_TASKS_A_CORE = 4
"""So that cores are done at about the same time."""


def run_in_tasks(spark: SparkSession, work: Work, count: int, ddl: str) -> list[dict[str, Any]]:
    """Run `work` for the numbers below `count`; return the rows, of the columns in `ddl`, in no particular order.

    A task has numbers that follow each other. There are four tasks a core that Spark has at this moment.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        numbers = [number for batch in batches for number in batch["id"].to_pylist()]
        for row in work(numbers) if numbers else ():
            yield batch_of(ddl, [row])

    tasks = min(count, _TASKS_A_CORE * spark.sparkContext.defaultParallelism)
    return spark.range(0, count, 1, max(tasks, 1)).mapInArrow(run, ddl).toArrow().to_pylist()
