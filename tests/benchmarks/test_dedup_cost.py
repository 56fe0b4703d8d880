"""The landed day that dedup is measured on is as it says, the engines find the same on it, and figures need their rows."""

from __future__ import annotations

import math

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from bahe_tasks.behavior_key import behavior_key, canonical_text
from bahe_tasks.stores.delta_tables import read_table
from benchmarks import dedup_cost
from benchmarks.kit.dedup_engines import by_polars
from benchmarks.kit.landed_day import DAY, ENCODER_VERSION, fill_store, land_day, texts_of


def test_a_landed_day_has_a_heavy_user_copies_repeated_texts_and_odd_ones(tmp_path):
    day = land_day(tmp_path, num_events=20_000)
    events = ds.dataset(tmp_path / "behavior_events", format="parquet").to_table()
    assert events.num_rows == day.num_events == 20_000
    assert pc.mean(pc.equal(events["user_id"], "u0")).as_py() == pytest.approx(0.05, abs=0.01)
    kept = events.group_by(events.column_names).aggregate([])
    assert events.num_rows - kept.num_rows == pytest.approx(200, abs=20)
    texts = events["text"].to_pylist()
    assert 0.05 < len(set(texts)) / len(texts) < 0.5
    assert any(canonical_text(text) != " ".join(text.split()) for text in texts)


def test_the_same_seed_gives_the_same_day(tmp_path):
    for name in ("a", "b"):
        land_day(tmp_path / name, num_events=1000)
    a, b = (ds.dataset(tmp_path / name / "behavior_events", format="parquet").to_table() for name in ("a", "b"))
    assert a.to_pandas().equals(b.to_pandas())  # which takes NaN for NaN


def test_a_store_holds_each_key_once_and_nine_of_ten_texts_of_the_catalogue(tmp_path):
    fill_store(tmp_path, num_keys=500, num_texts=200)
    known = read_table(tmp_path, "atomic_behaviors").to_pylist()
    keys = {row["behavior_key"] for row in known}
    assert len(keys) == len(known) == 500
    assert all(row["behavior_key"] == behavior_key(row["text"]) for row in known)
    catalogue = [behavior_key(text) in keys for text in texts_of(np.arange(200)).to_pylist()]
    assert sum(catalogue) == 180
    embedded = read_table(tmp_path, "behavior_embeddings", partitions=f"encoder_version = '{ENCODER_VERSION}'")
    assert set(embedded["behavior_key"].to_pylist()) == keys
    assert pc.max(embedded["dt"]).as_py() < DAY


def row(engine, events, store_keys, seconds):
    return {"engine": engine, "events": events, "store_keys": store_keys, "seconds": seconds}


def test_figures_compare_the_most_events_with_the_smallest_store():
    rows = [
        *[row("spark", 10, 0, 1.0), row("duckdb", 10, 0, 1.0), row("polars", 10, 0, 1.0)],
        *[row("spark", 100, 0, 20.0), row("duckdb", 100, 0, 5.0), row("polars", 100, 0, 4.0)],
        *[row("spark", 100, 7, 30.0), row("duckdb", 100, 7, 9.0), row("polars", 100, 7, 9.0)],
    ]
    found = dedup_cost.figures(rows)
    assert (found["slowdown_vs_duckdb"], found["slowdown_vs_polars"]) == (4.0, 5.0)
    assert found["store_age_ratio"] == 1.5
    assert found["exponent"] == pytest.approx(math.log10(20))
    assert not any(name.endswith("whole_job") for name in found)


def test_one_day_and_one_store_have_no_exponent_and_no_age():
    found = dedup_cost.figures([row(engine, 10, 0, 1.0) for engine in ("spark", "duckdb", "polars")])
    assert set(found) == {"events", "store_keys", "slowdown_vs_duckdb", "slowdown_vs_polars"}


@pytest.mark.spark
def test_the_engines_agree_with_and_without_a_store(tmp_path):
    document = dedup_cost.run(
        tmp_path,
        events=[400],
        store_keys=[0, 300],
        repetitions=1,
        whole_job=True,
        driver_memory="1g",
    )
    assert [(r["engine"], r["store_keys"]) for r in document.rows] == [
        (engine, keys) for keys in (0, 300) for engine in ("spark", "duckdb", "polars", "whole job")
    ]
    assert all(r["seconds"] > 0 and r["peak_mb"] > 0 for r in document.rows)
    assert "store_age_ratio_whole_job" in document.figures


@pytest.mark.spark
def test_engines_that_differ_are_refused(tmp_path, monkeypatch):
    def one_short(work):
        found = by_polars(work)
        return found._replace(kept=found.kept - 1)

    monkeypatch.setattr(dedup_cost, "by_polars", one_short)
    with pytest.raises(dedup_cost.EnginesDifferError, match="polars has other counts than Spark"):
        dedup_cost.run(
            tmp_path,
            events=[100],
            store_keys=[0],
            repetitions=1,
            whole_job=False,
            driver_memory="1g",
        )
