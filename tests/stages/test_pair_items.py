"""What a file of pairs says of items and situations, over what is known of the items."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bahe_tasks.stages.pair_items import pair_columns
from bahe_tasks.stages.score_pairs import read_pairs


def test_what_the_file_says_wins_and_an_empty_text_says_nothing():
    known = {"i": {"cat": {"place": "shelf"}, "num": {"price": 2.0}}}
    frame = pd.DataFrame(
        {
            "user_id": "u",
            "item_id": ["i", "i", "i", "new"],
            "cat_place": ["top", "", None, ""],
            "cat_paid": [True, "", False, None],
            "num_price": [1.0, np.nan, 3.0, np.nan],
        }
    )
    cat, num = pair_columns(frame, known)
    assert cat["place"].tolist() == ["top", "shelf", "shelf", None]
    assert cat["paid"].tolist() == ["true", None, "false", None]
    np.testing.assert_array_equal(num["price"], [1.0, 2.0, 3.0, np.nan])


def test_parquet_columns_with_gaps_are_read_as_they_landed(tmp_path):
    ids = {"user_id": [1, 2, 3], "item_id": ["i", "j", "k"]}
    columns = {"cat_zip": [94110, None, 7], "cat_paid": [True, None, False], "num_age": [30, None, 5]}
    pq.write_table(pa.table(ids | columns), tmp_path / "pairs.parquet")
    frame = read_pairs(tmp_path / "pairs.parquet")
    cat, num = pair_columns(frame, {})
    assert frame["user_id"].tolist() == ["1", "2", "3"]
    assert cat["zip"].tolist() == ["94110", None, "7"]
    assert cat["paid"].tolist() == ["true", None, "false"]
    np.testing.assert_array_equal(num["age"], [30.0, np.nan, 5.0])
