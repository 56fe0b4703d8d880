import math
from datetime import date, timedelta

import numpy as np
import pytest
from predicted_days import impression, prediction, write_rows
from sklearn.metrics import log_loss, roc_auc_score

from bahe_tasks.config import Config, GateConfig
from bahe_tasks.core.intervals import metric_intervals
from bahe_tasks.core.metrics import METRICS
from bahe_tasks.stages.prediction_metrics import judged_rows
from bahe_tasks.stages.read_metrics import read_metrics
from bahe_tasks.stores.delta_tables import read_table

D2, D3, D4 = (date(2024, 1, 2) + timedelta(days=n) for n in range(3))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two days of 60 predictions and one of three without a click."""
    config = Config(home=tmp_path_factory.mktemp("home"), gate=GateConfig(bootstrap_samples=50))
    rng = np.random.default_rng(1)
    for version, day in enumerate((D2, D3), start=1):
        rows = []
        for n in range(60):
            p = round(float(rng.random()), 2)
            row = (day, n, f"u{n % 20}", f"i{n % 7}", int(rng.random() < p), p)
            rows.append(prediction(*row, version=version))
        write_rows(config, "progressive_predictions", rows)
        write_rows(config, "impressions", [impression(day, n, f"u{n % 20}", f"i{n % 7}", bills=n) for n in range(60)])
    write_rows(config, "progressive_predictions", [prediction(D4, n, "u0", "i0", 0, 0.1, version=3) for n in range(3)])
    return config


def arrays(config, where):
    table = read_table(config.tables_dir, "progressive_predictions", partitions=where)
    return np.asarray(table["label"]), np.asarray(table["click_probability"])


def test_days_and_pooled_keep_the_names_others_read(config):
    document = read_metrics(config)
    assert [day["day"] for day in document["days"]] == [str(D2), str(D3), str(D4)]
    assert [day["model_version"] for day in document["days"]] == [1, 2, 3]
    for record in (*document["days"], document["pooled"]):
        assert {"rows", "auc", "gauc", "logloss", "calibration"} <= set(record)
    assert set(document) == {"days", "average", "pooled"}


def test_a_day_and_the_pool_are_judged_by_their_own_rows(config):
    document = read_metrics(config)
    of_day, of_all = arrays(config, f"dt = '{D3}'"), arrays(config, f"dt <= '{D4}'")
    assert document["days"][1]["rows"] == 60
    assert document["days"][1]["auc"] == pytest.approx(roc_auc_score(*of_day))
    assert document["pooled"]["rows"] == 123
    assert document["pooled"]["auc"] == pytest.approx(roc_auc_score(*of_all))
    assert document["pooled"]["logloss"] == pytest.approx(log_loss(of_all[0], np.clip(of_all[1], 1e-7, 1 - 1e-7)))


def test_the_average_gives_each_day_that_has_a_metric_one_vote(config):
    document = read_metrics(config)
    days, average = document["days"], document["average"]
    assert math.isnan(days[2]["auc"])
    assert days[2]["calibration"] == math.inf
    assert (average["days"], average["days_with"]["auc"], average["days_with"]["logloss"]) == (3, 2, 3)
    assert average["auc"] == pytest.approx((days[0]["auc"] + days[1]["auc"]) / 2)
    assert average["logloss"] == pytest.approx(sum(day["logloss"] for day in days) / 3)


def test_first_and_last_day_are_included(config):
    document = read_metrics(config, first=D3, last=D3)
    assert [day["day"] for day in document["days"]] == [str(D3)]
    assert {name: document["pooled"][name] for name in METRICS} == {name: document["days"][0][name] for name in METRICS}


def test_intervals_are_those_of_the_settings_and_of_users(config):
    document = read_metrics(config, intervals=True)
    assert document["bootstrap"] == {"level": 0.95, "samples": 50, "seed": config.training.seed, "drawn": "users"}
    table = read_table(config.tables_dir, "progressive_predictions").to_pandas()
    drawn = metric_intervals(
        table["label"].to_numpy(float),
        table["click_probability"].to_numpy(),
        table["user_id"].to_numpy(object),
        samples=50,
        seed=config.training.seed,
    )
    for name in METRICS:
        found = document["pooled"]["intervals"][name]
        assert (found["low"], found["high"]) == pytest.approx((drawn[name].low, drawn[name].high)), name
    for record in (*document["days"][:2], document["average"], document["pooled"]):
        for name in METRICS:
            assert record["intervals"][name]["low"] <= record[name] <= record["intervals"][name]["high"], name


def test_segments_split_all_rows_and_are_judged_by_their_own(config):
    document = read_metrics(config, segments=True, intervals=True)
    for segment in ("user_impressions", "item_impressions", "history_length"):
        records = [record for record in document["segments"] if record["segment"] == segment]
        assert sum(record["rows"] for record in records) == 123
    clicks = arrays(config, f"dt <= '{D4}'")[0].sum()
    new_users, known = (r for r in document["segments"] if r["segment"] == "user_impressions")
    assert (new_users["value"], known["value"]) == ("0", "1-9")
    assert new_users["positives"] + known["positives"] == clicks
    assert new_users["auc"] == pytest.approx(read_metrics(config, last=D2)["pooled"]["auc"])
    assert set(new_users["intervals"]) == set(METRICS)


def test_a_home_without_predictions_has_no_metric(tmp_path):
    document = read_metrics(Config(home=tmp_path), intervals=True, segments=True)
    assert (document["days"], document["segments"], document["average"]["days"]) == ([], [], 0)
    assert document["pooled"]["rows"] == 0
    assert all(document["pooled"][name] is document["average"][name] is None for name in METRICS)


def test_user_codes_stand_in_the_order_of_the_ids(config):
    table = read_table(config.tables_dir, "progressive_predictions")
    distinct, codes = np.unique(table["user_id"].to_pandas().to_numpy(object), return_inverse=True)
    assert judged_rows(table).users.tolist() == codes.tolist()
    assert len(distinct) == 20
