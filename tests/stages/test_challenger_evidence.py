"""What the gate is told of a challenger's scores."""

from types import SimpleNamespace

import numpy as np
import pytest

from bahe_tasks.config import Config
from bahe_tasks.stages import challenger_evidence


@pytest.mark.parametrize(("score", "apart"), [(0.28, 0.0), (0.3, 0.0), (0.28, 1e-6)])
def test_equal_scores_have_no_deviation_at_all(monkeypatch, tmp_path, score, apart):
    rows = SimpleNamespace(labels=np.arange(300) % 2, user_ids=np.arange(300).astype(str).astype(object))
    window = SimpleNamespace(gate=lambda _: None)
    mapped = SimpleNamespace(index=SimpleNamespace(vectors=None))
    scores = score + apart * (np.arange(300) % 3)
    monkeypatch.setattr(challenger_evidence, "impression_rows", lambda *_args, **_named: rows)
    monkeypatch.setattr(challenger_evidence, "score_rows", lambda *_args: scores)
    metrics = challenger_evidence.challenger_metrics(window, mapped, Config(home=tmp_path), None, None)
    assert (metrics.score_std > 0) is (apart > 0)


def test_of_one_user_no_interval_has_ends(monkeypatch, tmp_path):
    rows = SimpleNamespace(labels=np.arange(300) % 2, user_ids=np.full(300, "u", object))
    window = SimpleNamespace(gate=lambda _: None)
    mapped = SimpleNamespace(index=SimpleNamespace(vectors=None))
    monkeypatch.setattr(challenger_evidence, "impression_rows", lambda *_args, **_named: rows)
    monkeypatch.setattr(challenger_evidence, "score_rows", lambda *_args: np.linspace(0.1, 0.9, 300))
    metrics = challenger_evidence.challenger_metrics(window, mapped, Config(home=tmp_path), None, "reference")
    assert (metrics.auc, metrics.auc_difference) == (metrics.reference_auc, 0)
    ends = ("calibration_low", "calibration_high", "logloss_excess_low", "auc_difference_low", "auc_difference_high")
    assert [getattr(metrics, name) for name in ends] == [None] * 5
