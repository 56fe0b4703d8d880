"""The synthetic log: its known click probabilities, the best AUC they allow, and that the texts carry the signal."""

from __future__ import annotations

import math
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from landed_rows import rows

from bahe_tasks.data_interval import days_between
from bahe_tasks.sources.synthetic import OracleNotFoundError, SyntheticCounts, oracle_auc, read_oracle, synthesize
from bahe_tasks.sources.synthetic.oracle import write_oracle

FIRST, LAST = date(2024, 1, 1), date(2024, 1, 3)


def auc(labels: list[int], scores: list[float]) -> float:
    """Share of (clicked, unclicked) pairs in the right order, ties one half; the definition itself."""
    label, score = np.array(labels), np.array(scores)
    difference = score[label == 1][:, None] - score[label == 0][None, :]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def test_truth_is_not_in_the_landed_rows(clean: tuple[Path, SyntheticCounts]) -> None:
    names = {name for row in rows(clean[0], "impressions") for name in row}
    assert names == {
        "impression_id",
        "user_id",
        "item_id",
        "shown_at",
        "label",
        "cat_device",
        "num_position",
        "num_hour",
    }


def test_every_good_impression_has_a_known_probability(clean: tuple[Path, SyntheticCounts]) -> None:
    landing, _ = clean
    for day in days_between(FIRST, LAST):
        assert read_oracle(landing, day).keys() == {row["impression_id"] for row in rows(landing, "impressions", day)}


def test_clicks_follow_the_known_probabilities(clean: tuple[Path, SyntheticCounts]) -> None:
    """Expected and observed clicks differ by less than 4 standard deviations of a sum of independent clicks."""
    landing, counts = clean
    p = np.array([value for day in days_between(FIRST, LAST) for value in read_oracle(landing, day).values()])
    assert abs(counts.clicks - p.sum()) < 4 * math.sqrt((p * (1 - p)).sum())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_best_reachable_auc_lies_between_080_and_086(seed: int, tmp_path: Path) -> None:
    synthesize(tmp_path, days=2, users=200, seed=seed)
    assert 0.80 < oracle_auc(tmp_path, FIRST, FIRST + timedelta(days=1)) < 0.86


def test_best_reachable_auc_is_the_auc_of_the_truth_and_far_above_popularity(
    clean: tuple[Path, SyntheticCounts],
) -> None:
    landing, _ = clean
    clicks: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    for day in days_between(FIRST, LAST - timedelta(days=1)):
        for row in rows(landing, "impressions", day):
            shown[row["item_id"]] += 1
            clicks[row["item_id"]] += row["label"]
    today = rows(landing, "impressions", LAST)
    truth = read_oracle(landing, LAST)
    labels = [row["label"] for row in today]
    popularity = auc(labels, [(clicks[r["item_id"]] + 1) / (shown[r["item_id"]] + 3) for r in today])
    best = oracle_auc(landing, LAST, LAST)
    assert abs(best - auc(labels, [truth[row["impression_id"]] for row in today])) < 0.03
    assert best > popularity + 0.1


def test_words_of_a_history_tell_which_titles_are_clicked(clean: tuple[Path, SyntheticCounts]) -> None:
    """Score = share of a user's earlier behaviors that share a word with the title; no encoder, so a lower bound."""
    landing, _ = clean
    title = {row["item_id"]: set(row["title"].split()) for row in rows(landing, "items")}
    history: dict[str, list[tuple[str, set[str]]]] = {}
    for row in rows(landing, "behavior_events"):
        history.setdefault(row["user_id"], []).append((row["occurred_at"], set(row["text"].split())))
    frames = {
        "the",
        "a",
        "to",
        "how",
        "best",
        "at",
        "and",
        "for",
        "or",
        "about",
        "guide",
        "near",
        "me",
        "paid",
        "price",
    }
    labels, scores = [], []
    for row in rows(landing, "impressions", LAST):
        words = title[row["item_id"]] - frames
        before = [text for time, text in history.get(row["user_id"], []) if time < row["shown_at"]]
        labels.append(row["label"])
        scores.append(sum(bool(text & words) for text in before) / (len(before) + 1))
    assert auc(labels, scores) > 0.57


def test_expected_auc_of_two_impressions_by_hand(tmp_path: Path) -> None:
    """p = 0.2 and 0.8: right order with weight 0.8 · 0.8 = 0.64, wrong with 0.2 · 0.2 = 0.04."""
    write_oracle(tmp_path, FIRST, impression_ids=np.array(["a", "b"]), probability=np.array([0.2, 0.8]))
    assert oracle_auc(tmp_path, FIRST, FIRST) == pytest.approx(0.64 / 0.68)


def test_expected_auc_of_equal_probabilities_is_one_half(tmp_path: Path) -> None:
    write_oracle(tmp_path, FIRST, impression_ids=np.array(["a", "b", "c"]), probability=np.full(3, 0.3))
    assert oracle_auc(tmp_path, FIRST, FIRST) == pytest.approx(0.5)


def test_expected_auc_needs_the_truth_of_every_day(tmp_path: Path) -> None:
    with pytest.raises(OracleNotFoundError, match="bahe synthesize"):
        oracle_auc(tmp_path, FIRST, FIRST)
