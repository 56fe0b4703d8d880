"""Every variant gathers the same vectors of the same keys, and what a benchmark wrote is gone."""

import json

import numpy as np
import pytest

from benchmarks import store_cost


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    store_cost.write_tables(folder, 300)
    return folder


def test_every_variant_gathers_the_same_rows(folder):
    at = np.array([0, 7, 7, 269])
    found = {}
    for name, read in store_cost.VARIANTS.items():
        gather, num_rows = read(folder)
        assert num_rows == 270  # nine in ten
        found[name] = gather(at)
    assert found["ours"].shape == (4, 384)
    assert found["ours"].std() > 0.5
    for vectors in found.values():
        assert vectors.dtype.is_floating_point
        assert np.array_equal(vectors.numpy(), found["ours"].numpy())


def test_a_row_says_what_a_variant_took(folder):
    row = store_cost.measure("ours", folder, seconds=0.0001)
    assert row["keys"] == 270
    assert row["rows_per_s"] > 0
    assert {"read_s", "peak_mb", "resident_mb"} <= row.keys()


def test_the_tables_are_removed_and_figures_are_of_the_rows(tmp_path, monkeypatch):
    rows = {
        "ours": {"read_s": 2.0, "rows_per_s": 9.0, "peak_mb": 10.0},
        "dict": {"read_s": 6.0, "rows_per_s": 1.0, "peak_mb": 50.0},
        "parquet": {"read_s": 1.0, "rows_per_s": 9.0, "peak_mb": 40.0},
    }

    class Done:
        def __init__(self, command, **_how):
            self.stdout = json.dumps(rows[command[command.index("--variant") + 1]])

    monkeypatch.setattr(store_cost.subprocess, "run", Done)
    document = store_cost.run(50, tmp_path)
    assert document.figures == {
        "rows_per_s": 9.0, "memory_mb": 10.0, "memory_of_dict": 0.2, "memory_of_parquet": 0.25,
        "read_speedup_vs_dict": 3.0, "keys": 50.0,
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == []
