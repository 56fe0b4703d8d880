"""The known click probabilities of the synthetic log, kept beside it: the best AUC any model can reach.

They stand in LANDING/oracle, which is not part of the landing contract: the pipeline never reads them.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np

from bahe_tasks.data_interval import days_between
from bahe_tasks.sources.landing_files import json_lines, landing_file, write_whole

_FILE_NAME = "click_probability.jsonl"


class OracleNotFoundError(FileNotFoundError):
    """The landing folder holds no known click probabilities for a day."""


def write_oracle(landing: Path, day: date, *, impression_ids: np.ndarray, probability: np.ndarray) -> bool:
    """Write the day's known click probabilities; return whether the file changed."""
    rows = zip(impression_ids.tolist(), np.round(probability, 6).tolist(), strict=True)
    content = json_lines({"impression_id": name, "click_probability": value} for name, value in rows)
    return write_whole(landing_file(landing, "oracle", day, _FILE_NAME), content)


def read_oracle(landing: Path, day: date) -> dict[str, float]:
    """Return the known click probability of each impression that landed on the day.

    Raises `OracleNotFoundError` when the day is not one of a synthetic log.
    """
    path = landing_file(landing, "oracle", day, _FILE_NAME)
    if not path.is_file():
        raise OracleNotFoundError(
            f"{path} does not exist; only a log made by `bahe synthesize` has known probabilities"
        )
    with path.open(encoding="utf-8") as lines:
        rows = map(json.loads, lines)
        return {row["impression_id"]: row["click_probability"] for row in rows}


def oracle_auc(landing: Path, first: date, last: date) -> float:
    """Return the best reachable AUC over the impressions landed from `first` to `last`, pooled.

    It is the expected AUC of the known probabilities p themselves, no label being read:

        Σ_{i≠j} p_i (1 − p_j) ([p_i > p_j] + ½ [p_i = p_j]) / Σ_{i≠j} p_i (1 − p_j)

    A model may exceed it on a few rows by chance. Range 0.5 to 1. Raises `OracleNotFoundError`, and `ValueError` for
    fewer than two impressions.
    """
    by_day = [np.array(list(read_oracle(landing, day).values())) for day in days_between(first, last)]
    p = np.sort(np.concatenate([np.empty(0), *by_day]))
    if len(p) < 2:
        raise ValueError(f"an AUC needs two impressions or more; {first} to {last} has {len(p)}")
    unclicked_below = np.concatenate([[0.0], np.cumsum(1.0 - p)])
    low, high = np.searchsorted(p, p, side="left"), np.searchsorted(p, p, side="right")
    ranked = p * (unclicked_below[low] + unclicked_below[high]) / 2
    own_pairs = p * (1.0 - p)
    return float((ranked.sum() - own_pairs.sum() / 2) / (p.sum() * (1.0 - p).sum() - own_pairs.sum()))
