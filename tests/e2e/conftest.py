"""Whole days in this process: real Spark, Delta, MiniLM, MLflow and Great Expectations, on logs written by hand."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from bahe_tasks.config import Config, SparkConfig, load_config
from bahe_tasks.engines import inline
from bahe_tasks.stores.delta_tables import read_table
from spark_jobs.session import FOR_MANY_DAYS, spark_session

FIRST = date(2024, 3, 1)
TOPICS = {
    "food": ["order takeout noodles", "book a table for dinner", "buy fresh vegetables"],
    "travel": ["book hotel in Rome", "buy train ticket", "search flights to Lisbon"],
    "music": ["listen to a jazz album", "buy concert ticket", "tune the guitar"],
}


class Log:
    """A landing folder that a test writes row by row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def land(self, source: str, day: date, rows: list[dict | str], *, name: str = "part-0.jsonl") -> None:
        """Write rows (or raw lines) as one jsonl file of the source's partition."""
        partition = self.folder / source / f"dt={day}"
        partition.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (partition / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def ordinary_day(self, day: date, *, users: int = 24) -> None:
        """Land a day on which each user, who likes one topic, is shown items of all topics and clicks those of its own."""
        topics = sorted(TOPICS)
        items, events, impressions = [], [], []
        for t, topic in enumerate(topics):
            for n, text in enumerate(TOPICS[topic]):
                items.append(
                    {
                        "item_id": f"i{t}{n}",
                        "title": f"{text} today",
                        "updated_at": at(day, 0),
                        "cat_topic": topic,
                        "num_rank": n,
                    }
                )
        for user in range(users):
            liked = user % len(topics)
            for n, text in enumerate(TOPICS[topics[liked]]):
                events.append(
                    {"user_id": f"u{user}", "feature": "bills", "occurred_at": at(day, 6 + n), "text": text, "value": n}
                )
            events.append(
                {
                    "user_id": f"u{user}",
                    "feature": "visits",
                    "occurred_at": at(day, 5),
                    "text": f"visit {topics[liked]} page",
                }
            )
            for t in range(len(topics)):
                shown = at(day, 12 + t, minute=user)
                impressions.append(
                    {"impression_id": f"{day}-{user}-{t}", "user_id": f"u{user}", "item_id": f"i{t}{user % 3}",
                     "shown_at": shown, "label": int(t == liked), "label_saved": int(t == liked and user % 2 == 0),
                     "cat_device": "phone", "num_hour": 12 + t}
                )  # fmt: skip
        self.land("items", day, items)
        self.land("behavior_events", day, events)
        self.land("impressions", day, impressions)


def at(day: date, hour: int, minute: int = 0) -> str:
    """Return an ISO 8601 time of the day, UTC."""
    return (datetime(day.year, day.month, day.day) + timedelta(hours=hour, minutes=minute)).isoformat() + "Z"


def impression(day, number, *, user="u0", item="i0", label=1, hour=12, **more):
    """One row of impressions."""
    return {
        "impression_id": f"{day}-{number}",
        "user_id": user,
        "item_id": item,
        "shown_at": at(day, hour),
        "label": label,
        **more,
    }


def event(day, user="u0", text="order takeout", hour=6):
    """One row of behavior_events."""
    return {"user_id": user, "feature": "bills", "occurred_at": at(day, hour), "text": text}


def kill_in(task, day, config, monkeypatch):
    """Run the day until that task begins."""

    def killed(*_arguments, **_named):
        raise KeyboardInterrupt(task)

    killed.__name__ = task
    with monkeypatch.context() as patch:
        patch.setattr(inline, task, killed)
        with pytest.raises(KeyboardInterrupt):
            inline.run_day(day, config)


SMALL = {
    "sequences": {"max_behaviors_per_sequence": 8, "max_events_per_sequence": 64},
    "model": {"hidden_widths": [16], "hash_buckets": 256},
    "gate": {"min_gate_rows": 10, "held_out_share": 0.3, "bootstrap_samples": 200},
    "spark": {"driver_memory": "1g"},
}


def small_config(home: Path) -> Config:
    """Write and return settings that make a day of a few rows cheap and its gate decidable."""
    (home / "bahe.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    return load_config(home)


@pytest.fixture(scope="session")
def spark():
    """The session the days of all tests run in: starting a JVM is what costs."""
    return spark_session(SparkConfig(driver_memory="1g", jvm_options=FOR_MANY_DAYS), app_name="tests")


@pytest.fixture
def home(tmp_path):
    """Settings of an empty home folder."""
    return small_config(tmp_path)


@pytest.fixture
def log(home):
    """The home's landing folder, still empty."""
    return Log(home.landing_dir)


def published_alone(what):
    """Return a `read_table` that finds nothing of what is published but the log's own sums and what is of "users" or "items"."""
    scopes = {"users": ["user", "user_item", "pair"], "items": ["item", "token"], "nothing": []}[what]

    def read(tables_dir, name, **of):
        rows = read_table(tables_dir, name, **of)
        if name == "published_sums":
            return rows.filter(pc.is_in(rows["scope"], pa.array(["log", "cat", "all", *scopes])))
        return rows if name == f"{what.removesuffix('s')}_embeddings" else rows.slice(0, 0)

    return read
