import json
from datetime import date

import numpy as np
import pytest
from typer.testing import CliRunner

from bahe_tasks.config import Config
from bahe_tasks.running_sums import IMPRESSION_SUMS
from benchmarks import text_value
from benchmarks.kit.judged_days import JudgedDays, read_judged, synthetic


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    landing = synthetic(tmp_path_factory.mktemp("text_value"), days=2, users=40)
    days = JudgedDays(landing, date(2024, 1, 1), report_from=date(2024, 1, 2), last=date(2024, 1, 2))
    return read_judged(days, Config(home=landing))


def lengths(rows):
    return {name: (h.ends - h.starts).sum() for name, h in rows.histories.items()}


def test_each_variant_lacks_its_text_and_nothing_else(log):
    rows, _ = log[0].rows, log[1]
    found = {name: change(rows) for name, change in text_value.variants(rows).items()}
    assert found.keys() >= {"everything", "without searches", "without titles", "without words", "without any text"}
    assert lengths(found["everything"]) == lengths(rows)
    assert lengths(found["without searches"]) == {**lengths(rows), "searches": 0}
    assert (rows.title_rows >= 0).any()
    assert (found["without titles"].title_rows == -1).all()
    nothing = found["without any text"]
    assert not any(lengths(nothing).values())
    assert (nothing.title_rows == -1).all()
    of_words = np.array([name.startswith(("token_", "pair_")) for name in IMPRESSION_SUMS])
    assert np.isnan(nothing.sums[:, of_words]).all()
    assert not np.isnan(rows.sums[:, of_words]).all()
    for variant in found.values():
        np.testing.assert_array_equal(variant.sums[:, ~of_words], rows.sums[:, ~of_words])


def test_segments_part_the_judged_rows(log):
    (whole, judged) = log
    parts = text_value.segments(whole.rows, judged)
    short, long = (parts[name] for name in parts if name.startswith("histories"))
    np.testing.assert_array_equal(short ^ long, judged)
    np.testing.assert_array_equal(parts["new users"] | parts["new items"], parts[text_value.COLD])
    assert not (parts[text_value.COLD] & ~judged).any()


def test_small_says_what_each_kind_of_text_is_worth():
    result = CliRunner().invoke(text_value.app, ["--json", "--small"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["figures"].keys() == {
        *("worth_of_text", "worth_of_text_low", "cold_worth_of_text", "cold_worth_of_text_low"),
    }
    of_all = {row["variant"]: row for row in document["rows"] if row["segment"] == "all"}
    assert of_all["everything"]["worth"] == 0
    for row in of_all.values():
        assert row["worth"] == pytest.approx(of_all["everything"]["auc"] - row["auc"])
        assert row["low"] <= row["worth"] <= row["high"]
    assert document["figures"]["worth_of_text"] == of_all["without any text"]["worth"]
