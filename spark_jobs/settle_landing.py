"""Settles what landed: Spark shares the files out and brings rows together that may be equal; what is done with rows is Arrow.

Each source's landed rows end in its table, as surplus copies of a row there, or in quarantine (`spark_jobs.landed`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from typing import Any

from pyspark.sql import SparkSession

from bahe_tasks.schemas import SOURCES
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.landed.pieces import pieces_of
from spark_jobs.landing_files import make_folder, remove_folder
from spark_jobs.settle_few import settle_few
from spark_jobs.settle_many import settle_many
from spark_jobs.settled_rows import SettledRows


@contextmanager
def settled_landing(
    spark: SparkSession, plan: DedupPlan, sources: Sequence[str] = SOURCES
) -> Iterator[dict[str, SettledRows[Any]]]:
    """Give the settled rows of each source, which lie in files that are gone afterwards.

    Raises `UnreadableFileError`.
    """
    pieces = [piece for source in sources for piece in pieces_of(plan.landing_dir, source, plan.days_of(source))]
    folder = settled_folder(plan.tables_dir, plan.day)
    remove_folder(folder)  # of a run that failed
    make_folder(folder)
    settle = settle_few if plan.is_small else settle_many
    try:
        yield settle(spark, pieces, sources, plan=plan, folder=folder)
    except BaseException:
        with suppress(OSError):  # tasks may still be writing; what they leave goes when the day is run again
            remove_folder(folder)
        raise
    remove_folder(folder)


def settled_folder(tables_dir: object, day: date) -> str:
    """Return the folder of a day for files that are gone after its run."""
    return f"{tables_dir}/_settled-{day}"
