"""What a run counts: impressions and events that landed since the state before it, with their keys.

A row is a sighting (an impression, at shown_at), a fact (a label once it is known, an event once it happened), or both.
"""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from bahe_tasks.key_sums import DAY_US
from spark_jobs.dedup_plan import DedupPlan
from spark_jobs.title_tokens import state_key, title_tokens


def counted_rows(plan: DedupPlan, *, today: DataFrame, earlier: DataFrame, events: DataFrame) -> DataFrame:
    """Return one row an impression or event that counts, with the keys it has.

    Columns: impression_id (of impressions of the day that ask for their sums, else null), seen_us and fact_us (microseconds
    since the start of the day, null: is none), label, feature, value, user_key, item_key, feature_key, and keys: array<struct<scope, key, owner>>.
    `today`: the day's impressions; `earlier`: those of other days whose label, or whose showing, is not in the state yet,
    both with `title`; `events`: those that landed since. All with their `dt` and all readable.
    """
    rows = (
        _impressions(plan, today, asks=True).union(_impressions(plan, earlier, asks=False)).union(_events(plan, events))
    )
    counting = rows.where("seen_us IS NOT NULL OR fact_us IS NOT NULL")
    keyed = counting.withColumns(
        {
            "user_key": state_key("user", F.col("user_id")),
            "item_key": state_key("item", F.col("item_id")),
            "feature_key": state_key("feature", F.col("feature")),
            "tokens": F.coalesce(title_tokens(F.col("text")), F.array().cast("array<string>")),
        }
    )
    user = F.col("user_id")
    owner = F.col("user_key")
    keys = F.concat(
        F.array(_key("user", F.col("user_key"))),
        F.filter(F.array(_key("item", F.col("item_key"))), lambda entry: entry["key"].isNotNull()),
        F.transform("tokens", lambda token: _key("token", state_key("token", token))),
        F.transform("tokens", lambda token: _key("pair", state_key("pair", user, token), owner)),
    )
    return keyed.select(
        "impression_id",
        "seen_us",
        "fact_us",
        "label",
        "feature",
        "value",
        "user_key",
        "item_key",
        "feature_key",
        keys.alias("keys"),
    )


def start_us(day: date) -> int:
    """Return the first microsecond of a day since 1970, UTC."""
    return (day - date(1970, 1, 1)).days * DAY_US


def _impressions(plan: DedupPlan, impressions: DataFrame, *, asks: bool) -> DataFrame:
    usable = F.date_diff("label_date", "dt") <= plan.landing.label_horizon_days
    is_fact = usable & (F.col("label_date") <= F.lit(plan.day))
    is_seen = ~F.col("is_late")
    if plan.state_before is not None:
        is_fact &= F.col("label_date") > F.lit(plan.state_before)
        is_seen &= F.col("dt") > F.lit(plan.state_before)
    delayed_us = F.unix_micros("shown_at") + plan.landing.label_delay_s * 1_000_000
    known_us = F.coalesce(F.unix_micros("label_known_at"), delayed_us)
    # A log may say that a label was known before its impression was shown: it must not be read by that impression.
    counts_us = _counts_from(plan, F.greatest(known_us, F.unix_micros("shown_at")))
    asked = F.when(~F.col("is_late"), F.col("impression_id")) if asks else F.lit(None).cast("string")
    return impressions.select(
        asked.alias("impression_id"),
        "user_id",
        "item_id",
        F.col("title").alias("text"),
        F.when(is_seen, F.unix_micros("shown_at") - start_us(plan.day)).alias("seen_us"),
        F.when(is_fact, counts_us).alias("fact_us"),
        F.col("label").cast("double").alias("label"),
        F.lit(None).cast("string").alias("feature"),
        F.lit(None).cast("double").alias("value"),
    )


def _events(plan: DedupPlan, events: DataFrame) -> DataFrame:
    return events.select(
        F.lit(None).cast("string").alias("impression_id"),
        "user_id",
        "item_id",
        "text",
        F.lit(None).cast("bigint").alias("seen_us"),
        _counts_from(plan, F.unix_micros("occurred_at")).alias("fact_us"),
        F.lit(None).cast("double").alias("label"),
        "feature",
        "value",
    )


def _counts_from(plan: DedupPlan, time_us: Column) -> Column:
    """Return when a fact begins to count, from the start of the day; with `as_of: day_start` at the last microsecond of its day."""
    time_us = time_us - start_us(plan.day)
    if plan.numbers.as_of == "impression":
        return time_us
    return time_us - F.pmod(time_us, F.lit(DAY_US)) + (DAY_US - 1)


def _key(scope: str, key: Column, owner: Column | None = None) -> Column:
    owner = F.lit(None).cast("bigint") if owner is None else owner
    return F.struct(F.lit(scope).alias("scope"), key.alias("key"), owner.alias("owner"))
