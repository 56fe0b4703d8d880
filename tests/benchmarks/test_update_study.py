from datetime import date, timedelta

import numpy as np
import pytest
import torch

from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.core.training_rows import ImpressionRows
from benchmarks.kit.in_memory_log import InMemoryLog
from benchmarks.kit.replay import replay
from benchmarks.kit.update_policies import NO_UPDATE, WARM_START, WEEKLY, UpdatePolicy, refit
from benchmarks.update_study import BaseTooShortError, replay_policy, run

SINCE = date(2024, 1, 10)
EVERY_SECOND = UpdatePolicy("every_second", every_days=2, window_days=2)


@pytest.fixture(scope="module")
def embeddings(study, tiny_config):
    rows = [rows for _, rows in study.days]
    return study.log.encode_read(rows, checkpoint_dir(tiny_config.encoder.checkpoint), tiny_config.encoder)


@pytest.fixture(scope="module")
def base(study, embeddings, tiny_config):
    return replay(study.days[:2], embeddings, tiny_config, texts=study.log.texts, seed=1)[1]


def _windows(policy, num_days):
    days = [SINCE + timedelta(days=n) for n in range(num_days)]
    windows = {(day - SINCE).days: policy.window(day, since=SINCE) for day in days}
    return {n: tuple((end - SINCE).days for end in window) for n, window in windows.items() if window}


def log_of(days):
    """One impression at noon of each day, whose title is its number."""
    noon = np.array([np.datetime64(day, "us").astype(np.int64) + 12 * 3_600_000_000 for day in days])
    names = np.array([str(day) for day in days], object)
    rows = ImpressionRows(
        impression_ids=names, user_ids=names, item_ids=names, shown_at=noon, as_of=noon,
        labels=np.zeros(len(days), np.float32), title_rows=np.arange(len(days)), histories={}, cat={}, num={},
    )  # fmt: skip
    return InMemoryLog(rows, [])


def test_the_windows_of_the_policies():
    assert _windows(WARM_START, 4) == {1: (1, 1), 2: (2, 2), 3: (3, 3)}
    assert _windows(WEEKLY, 15) == {7: (1, 7), 14: (8, 14)}
    assert _windows(NO_UPDATE, 15) == {}
    assert _windows(refit(3), 3) == {0: (-2, 0), 1: (-1, 1), 2: (0, 2)}


def test_an_update_of_a_day_without_impressions_is_made_after_the_day_before_it():
    days = [0, 1, 2, 3, 6, 8, 9, 13, 16]
    log = log_of([SINCE + timedelta(days=n) for n in days])
    found = {n: WEEKLY.rows_after(SINCE + timedelta(days=n), log, since=SINCE) for n in days}
    trained_on = {n: [days[r] for r in rows.title_rows] for n, rows in found.items() if rows is not None}
    assert trained_on == {6: [1, 2, 3, 6], 13: [8, 9, 13]}


@pytest.mark.parametrize(
    ("policy", "trained_on"),
    [
        (WARM_START, {2: [2], 3: [3]}),
        (EVERY_SECOND, {3: [2, 3]}),
        (refit(2), {1: [0, 1], 2: [1, 2], 3: [2, 3]}),
        (NO_UPDATE, {}),
    ],
)
def test_a_policy_trains_on_exactly_the_rows_it_says(policy, trained_on, study, embeddings, tiny_config, base):
    found = replay_policy(policy, study, embeddings, tiny_config, base=base, num_base_days=2, seed=1)
    days = [day for day, _ in study.days]
    assert {days.index(u.day): u.impression_ids.tolist() for u in found.updates} == {
        after: [name for n in read for name in study.days[n][1].impression_ids] for after, read in trained_on.items()
    }
    assert found.days.tolist() == [day for day, rows in study.days[2:] for _ in range(len(rows))]


def test_every_policy_leaves_the_base_as_it_is_and_no_update_scores_with_its_bits(study, embeddings, tiny_config, base):
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    nothing, left = replay(
        study.days[2:], embeddings, tiny_config, texts=study.log.texts, seed=1, start=base, rows_after=lambda _day: None
    )
    asked = {"base": base, "num_base_days": 2, "seed": 1}
    by_policy = replay_policy(NO_UPDATE, study, embeddings, tiny_config, **asked)
    replay_policy(WARM_START, study, embeddings, tiny_config, **asked)
    assert all(torch.equal(weight, before[name]) for name, weight in left.model.state_dict().items())
    assert all(torch.equal(weight, before[name]) for name, weight in base.model.state_dict().items())
    assert np.array_equal(nothing.scores, by_policy.scores)
    assert not nothing.updates


def test_warm_start_after_the_base_goes_on_as_one_replay(study, embeddings, tiny_config, base):
    through, _ = replay(study.days, embeddings, tiny_config, texts=study.log.texts, seed=1)
    after = replay_policy(WARM_START, study, embeddings, tiny_config, base=base, num_base_days=2, seed=1 + 2)
    assert np.array_equal(through.scores[-len(after.scores) :], after.scores)


def test_a_re_fit_knows_nothing_but_its_window(study, embeddings, tiny_config, base):
    """The model that scores the last day is the one that the days of its window make alone."""
    by_policy = replay_policy(refit(2), study, embeddings, tiny_config, base=base, num_base_days=2, seed=1)
    rows = study.log.between(study.days[1][0], study.days[2][0])
    window_and_last = [(study.days[2][0], rows), study.days[3]]
    alone, _ = replay(window_and_last, embeddings, tiny_config, texts=study.log.texts, seed=1 + 1)
    assert np.array_equal(by_policy.scores[-len(alone.scores) :], alone.scores)


def test_the_study_compares_with_warm_start(study, tiny_config):
    document = run(study, tiny_config, windows=[2], num_base_days=2, seeds=2)
    pooled = {row["policy"]: row for row in document.rows if row["day"] == "pooled"}
    assert list(pooled) == ["warm_start", "no_update", "weekly", "refit_2"]
    assert document.figures["freshness_auc"] == pytest.approx(-pooled["no_update"]["difference"])
    assert document.figures["freshness_auc_low"] == pytest.approx(-pooled["no_update"]["high"], abs=2e-3)
    assert document.figures["refit_2_auc_difference"] == pooled["refit_2"]["difference"]
    assert [pooled[name]["updates"] for name in pooled] == [2, 0, 0, 2]
    assert pooled["no_update"]["cpu_ratio"] == 0
    days = [row for row in document.rows if row["policy"] == "warm_start"]
    assert days[0]["rows"] == sum(row["rows"] for row in days[1:])
    with pytest.raises(BaseTooShortError, match="1 of 4 days"):
        run(study, tiny_config, windows=[2], num_base_days=1, seeds=1)
