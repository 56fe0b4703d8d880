"""What a file of pairs says of items and situations, over what is known of the items."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bahe_tasks.stages.pair_items import pair_columns


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
