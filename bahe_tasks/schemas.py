"""Every Delta table of the project: columns, types, partitioning. Spark and torch read the same definitions.

Types are Spark DDL. Open-ended columns are maps, so that a new `cat_*`, `num_*` or `label_*` column of the log is
data, not a migration. Keys come first and wide columns last: Delta keeps statistics of the first 32 columns only.
All times are UTC, all `dt` are the day the row landed (see docs/contract.md).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TableSchema:
    """One table: its columns as (name, Spark DDL type) in order, and the columns it is partitioned by."""

    name: str
    columns: tuple[tuple[str, str], ...]
    partition_columns: tuple[str, ...] = ("dt",)

    @property
    def ddl(self) -> str:
        """The columns as one Spark DDL string."""
        return ", ".join(f"`{name}` {kind}" for name, kind in self.columns)

    @property
    def column_names(self) -> list[str]:
        return [name for name, _ in self.columns]


_STATE_COLUMNS = (
    ("scope", "string"),
    ("key", "bigint"),
    ("owner", "bigint"),
    ("updated", "date"),
    ("first_at", "timestamp"),
    ("last_at", "timestamp"),
    ("sums", "array<double>"),
)

_TABLES = (
    # One row an event of a user: what happened, to which text feature (behavior sequence) it belongs.
    TableSchema(
        "behavior_events",
        (
            ("dt", "date"),
            ("user_id", "string"),
            ("feature", "string"),
            ("occurred_at", "timestamp"),
            ("behavior_key", "string"),
            ("item_id", "string"),
            ("value", "double"),
            ("text", "string"),
        ),
    ),
    # A change log: one row each time an item was described anew.
    TableSchema(
        "items",
        (
            ("dt", "date"),
            ("item_id", "string"),
            ("updated_at", "timestamp"),
            ("title_key", "string"),
            ("title", "string"),
            ("cat", "map<string,string>"),
            ("num", "map<string,double>"),
        ),
    ),
    # title_key, cat and num hold what was known of the item at shown_at; title_key is null for an unknown item.
    # sequence_ends: per text feature the exclusive end of this impression's history in user_sequences (same dt, user).
    # label_date: the first day whose run may use the label.  is_late: shown before the day it landed.
    # sums: bahe_tasks.running_sums.IMPRESSION_SUMS as they were before it was shown; null for a late impression.
    # outcome_value: of the user's first event with a value about the item, from shown_at to the end of dt; null for a late one.
    TableSchema(
        "impressions",
        (
            ("dt", "date"),
            ("impression_id", "string"),
            ("user_id", "string"),
            ("item_id", "string"),
            ("shown_at", "timestamp"),
            ("label", "int"),
            ("label_known_at", "timestamp"),
            ("label_date", "date"),
            ("is_late", "boolean"),
            ("title_key", "string"),
            ("sequence_ends", "map<string,int>"),
            ("labels", "map<string,int>"),
            ("cat", "map<string,string>"),
            ("num", "map<string,double>"),
            ("sums", "array<double>"),
            ("outcome_value", "double"),
        ),
    ),
    # The state at the end of dt of the keys touched in (dt - lowbit(dt), dt] (bahe_tasks.state_cover), of each the newest
    # row: its sums at the end of `updated`, to be faded from there.  owner: the key of the user of a pair.
    # first_at, last_at: when the key was first and last shown.
    TableSchema("running_sums", (("dt", "date"), *_STATE_COLUMNS)),
    # The dictionary: every text ever needed, once.
    TableSchema("atomic_behaviors", (("behavior_key", "string"), ("text", "string")), ()),
    # What a day added: needed keys with no embedding under encoder_version written by another day's run.
    TableSchema(
        "new_behaviors",
        (("dt", "date"), ("encoder_version", "string"), ("behavior_key", "string"), ("text", "string")),
    ),
    # embedding: H little-endian float16, 2·H bytes (delta-rs takes no lists of float16).
    TableSchema(
        "behavior_embeddings",
        (("encoder_version", "string"), ("dt", "date"), ("behavior_key", "string"), ("embedding", "binary")),
        ("encoder_version", "dt"),
    ),
    # Arrays of equal length, oldest first, ties by behavior_key.
    TableSchema(
        "user_sequences",
        (
            ("dt", "date"),
            ("user_id", "string"),
            ("feature", "string"),
            ("behavior_keys", "array<string>"),
            ("occurred_at", "array<timestamp>"),
            ("values", "array<double>"),
        ),
    ),
    # source_table: behavior_events, impressions or items.  raw: the row as it was landed.
    TableSchema(
        "quarantine",
        (
            ("dt", "date"),
            ("source_table", "string"),
            ("reason", "string"),
            ("source_file", "string"),
            ("raw", "string"),
        ),
        ("dt", "source_table"),
    ),
    TableSchema(
        "progressive_predictions",
        (
            ("dt", "date"),
            ("impression_id", "string"),
            ("user_id", "string"),
            ("item_id", "string"),
            ("label", "int"),
            ("click_probability", "double"),
            ("model_version", "int"),
        ),
    ),
    # embedding: N·(E + X) little-endian float32, the text features in sorted order; X = 1 with model.history_extents, else 0.
    TableSchema(
        "user_embeddings",
        (("model_version", "int"), ("user_id", "string"), ("embedding", "binary")),
        ("model_version",),
    ),
    # embedding: E = H + model.text_topics + model.text_id_width little-endian float32.
    TableSchema(
        "item_embeddings",
        (
            ("model_version", "int"),
            ("item_id", "string"),
            ("embedding", "binary"),
            ("cat", "map<string,string>"),
            ("num", "map<string,double>"),
        ),
        ("model_version",),
    ),
    # running_sums at the end of the model's day, of what was active: users and their pairs, items, tokens of
    # their titles, categorical values.
    TableSchema("published_sums", (("model_version", "int"), *_STATE_COLUMNS), ("model_version",)),
    # stage: validate_inputs or validate_challenger.  outcome: passed, failed, errored, not_enough_evidence or accepted (by hand).
    TableSchema(
        "gate_results",
        (
            ("dt", "date"),
            ("stage", "string"),
            ("model_version", "int"),
            ("expectation", "string"),
            ("outcome", "string"),
            ("observed", "string"),
            ("required", "string"),
        ),
        ("dt", "stage"),
    ),
)

TABLES: dict[str, TableSchema] = {table.name: table for table in _TABLES}
SOURCES = ("behavior_events", "impressions", "items")
"""The folders of the landing contract; each has a table of the same name."""
