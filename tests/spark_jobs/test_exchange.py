"""Rows sent to buckets come there whole, by kind and in order, by Spark's own tasks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from spark_jobs.exchange import send_rows, work_on_buckets
from spark_jobs.tasks import run_in_tasks

pytestmark = pytest.mark.spark
BUCKETS, NUMBERS = 3, 9


def test_rows_meet_in_their_bucket_in_the_order_in_which_they_were_sent(spark, tmp_path):
    def send(number, sender):
        """Send twice ten rows, every fifth to no bucket; the second number sends other columns besides. Tell the number."""
        for part in range(2):
            rows = pa.table({"sender": [number] * 10, "row": range(part * 10, part * 10 + 10)})
            place = np.arange(10)
            sender.send("counted", rows, np.where(place % 5 == 4, sender.buckets, place % sender.buckets))
        if number == 1:
            sender.send("counted", pa.table({"sender": ["one"], "row": [20]}), np.zeros(1, np.int64))
        sender.send("none", rows.slice(0, 0), np.zeros(0, np.int64))
        sender.tell("number", str(number).encode())

    def work(bucket, rows):
        for kind, tables in rows.items():
            for table in tables:
                for row in table.to_pylist():
                    yield bucket, kind, f"{row['sender']}:{row['row']}"

    sent = send_rows(spark, send, NUMBERS, folder=str(tmp_path), name="rows", buckets=BUCKETS)
    assert sent.told == [("number", str(number).encode()) for number in range(NUMBERS)]
    assert {of.kind for of in sent.files} == {"counted"}
    assert sorted(str(file) for file in tmp_path.iterdir()) == sorted(of.file for of in sent.files)
    found = work_on_buckets(spark, work, sent.files, "bucket int, kind string, row string")
    for bucket in range(BUCKETS):
        kept = [row for row in range(20) if row % 5 != 4 and row % 10 % BUCKETS == bucket]
        expected = [f"{number}:{row}" for number in range(NUMBERS) for row in kept]
        if bucket == 0:
            expected.insert(expected.index("2:0"), "one:20")
        assert [row["row"] for row in found if row["bucket"] == bucket] == expected
    assert list(tmp_path.iterdir()) == []


def test_nothing_sent_is_nothing_worked_on(spark, tmp_path):
    sent = send_rows(spark, lambda *_: None, 0, folder=str(tmp_path), name="rows", buckets=BUCKETS)
    assert sent == ([], [])
    assert work_on_buckets(spark, lambda *_: [], [], "bucket int") == []


def test_every_number_is_worked_on_once_by_few_tasks(spark):
    def partition(numbers):
        from pyspark import TaskContext

        return [(number, TaskContext.get().partitionId()) for number in numbers]

    rows = run_in_tasks(spark, partition, 100, "number int, task int")
    assert sorted(row["number"] for row in rows) == list(range(100))
    assert 1 < len({row["task"] for row in rows}) <= 4 * spark.sparkContext.defaultParallelism
