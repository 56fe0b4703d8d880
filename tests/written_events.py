"""A small Delta table of events, as tests of stores write and read it."""

from __future__ import annotations

from datetime import date

import pyarrow as pa

from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.delta_writes import replace_partitions

D1, D2, D3 = date(2013, 9, 24), date(2013, 9, 25), date(2013, 9, 26)


def events(day, users):
    rows = [{"dt": day, "user_id": user, "feature": "bills", "text": "tea"} for user in users]
    return pa.Table.from_pylist(rows, schema=arrow_schema("behavior_events"))


def write_events(tables_dir, day, users, fingerprint="f1"):
    return replace_partitions(
        tables_dir,
        "behavior_events",
        events(day, users),
        predicate=f"dt = '{day}'",
        partitions={str(day): {"input_fingerprint": fingerprint, "counts": {"rows": len(users)}}},
    )


def users_in(tables_dir, **how):
    return sorted(read_table(tables_dir, "behavior_events", columns=["user_id"], **how)["user_id"].to_pylist())
