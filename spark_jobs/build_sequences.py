"""Point-in-time histories: the sequences of a day's users, and where in them each impression stands (PAPER.md, step 3).

One sequence serves all of a user's impressions of the day. It holds the newest S events before the first of them and
everything from there up to the last; each impression stores the exclusive end of what had happened when it was shown,
or, with `history_as_of: day_start`, at the start of its day.

Unusual: events are ordered as one array per (user, feature), not by a window, so a day costs one shuffle.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from bahe_tasks.config import SequencesConfig

_ORDER = ("occurred_at", "behavior_key", "value", "item_id")


def build_sequences(events: DataFrame, impressions: DataFrame, *, sequences: SequencesConfig) -> DataFrame:
    """Return user_id, feature, behavior_keys, occurred_at, values (oldest first) and the number of `capped` behaviors.

    `events`: the rows of every day that may be read; one that landed on two days counts once. `impressions`: the
    day's. Ties in time are broken by behavior_key, value, item_id. At most max_events_per_sequence newest are kept.
    """
    as_of = history_end(sequences)
    users = impressions.groupBy("user_id").agg(F.min(as_of).alias("first"), F.max(as_of).alias("last"))
    gathered = (
        events.join(users, "user_id")
        .where(F.col("occurred_at") < F.col("last"))
        .groupBy("user_id", "feature")
        .agg(F.sort_array(F.collect_set(F.struct(*_ORDER))).alias("events"), F.first("first").alias("first"))
    )
    first = F.col("first")
    num_before = F.size(F.filter("events", lambda event: event["occurred_at"] < first))
    num_dropped = F.greatest(num_before - sequences.max_behaviors_per_sequence, F.lit(0))
    num_wanted = F.size("events") - F.col("num_dropped")
    num_kept = F.least(num_wanted, F.lit(sequences.max_events_per_sequence))
    return (
        gathered.withColumn("num_dropped", num_dropped)
        .withColumn("capped", num_wanted - num_kept)
        .withColumn("kept", F.slice("events", F.size("events") - num_kept + 1, num_kept))
        .select(
            "user_id",
            "feature",
            F.col("kept.behavior_key").alias("behavior_keys"),
            F.col("kept.occurred_at").alias("occurred_at"),
            F.col("kept.value").alias("values"),
            "capped",
        )
    )


def history_end(sequences: SequencesConfig) -> Column:
    """Return when an impression's history ends, exclusive."""
    shown_at = F.col("shown_at")
    return shown_at if sequences.history_as_of == "impression" else F.date_trunc("day", shown_at)


def sequence_ends(impressions: DataFrame, sequences: DataFrame, *, settings: SequencesConfig) -> DataFrame:
    """Return `impressions` with sequence_ends: per feature the number of the sequence's behaviors before its history ends.

    A feature without any is left out.
    """
    per_user = sequences.groupBy("user_id").agg(
        F.map_from_entries(F.sort_array(F.collect_list(F.struct("feature", "occurred_at")))).alias("times")
    )
    as_of = history_end(settings)
    ends = F.transform_values("times", lambda _, times: F.size(F.filter(times, lambda time: time < as_of)))
    joined = impressions.join(per_user, "user_id", "left")
    return joined.withColumn(
        "sequence_ends", F.coalesce(F.map_filter(ends, lambda _, end: end > 0), F.create_map().cast("map<string,int>"))
    ).drop("times")
