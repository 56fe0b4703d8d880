"""Spark cuts titles into the tokens of the one Python rule, and keys are the same in both."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from bahe_tasks import running_sums as rule
from spark_jobs.title_tokens import state_key, title_tokens

GOLDEN = ["Blue Moon blue", "a_b-c", "İstanbul I", "Été 2014", "日本 語", "", "!!", " ".join(map(str, range(50))), "x\ty\nz\x0b1", "Straße ẞ", "K\u212a"]  # fmt: skip


def spark_says(spark, texts):
    rows = spark.createDataFrame(list(enumerate(texts)), "i int, text string")
    return [row["t"] for row in rows.select("i", title_tokens(F.col("text")).alias("t")).orderBy("i").collect()]


@pytest.mark.spark
def test_golden_titles_have_the_tokens_of_the_python_rule(spark):
    assert spark_says(spark, GOLDEN) == [rule.title_tokens(text) for text in GOLDEN]
    assert spark_says(spark, ["a", None]) == [["a"], None]


@pytest.mark.spark
@settings(max_examples=3, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_random_unicode_has_the_tokens_of_the_python_rule(spark, seed):
    random = Random(seed)
    ranges = [(0, 0x80), (0, 0x300), (0, 0xD800), (0xE000, 0x110000)]
    texts = [
        "".join(chr(random.randrange(*random.choice(ranges))) for _ in range(random.randrange(12))) for _ in range(600)
    ]
    ascii_only = ["".join(chr(random.randrange(128)) for _ in range(random.randrange(12))) for _ in range(300)]
    assert spark_says(spark, texts + ascii_only) == [rule.title_tokens(text) for text in texts + ascii_only]


@pytest.mark.spark
def test_keys_are_those_of_the_python_rule(spark):
    rows = spark.createDataFrame([("u", "moon"), ("ü", ""), ("", "x"), (None, "x")], "user string, token string")
    found = rows.select(state_key("user", F.col("user")), state_key("pair", F.col("user"), F.col("token"))).collect()
    expected = [
        (rule.state_key("user", u), rule.state_key("pair", u, t)) for u, t in (("u", "moon"), ("ü", ""), ("", "x"))
    ]
    assert [tuple(row) for row in found] == [*expected, (None, None)]
