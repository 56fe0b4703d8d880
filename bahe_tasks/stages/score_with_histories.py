"""Click probabilities of pairs by a model whose user side depends on the item: histories and titles pass it together.

There is no user embedding to look up (`ModelConfig.user_is_cacheable`), so the deep layers run for every pair. Users'
histories are those at the end of the champion's day, as a published embedding's are, and so are the sums of what is known,
of users that are not active too.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bahe_tasks.config import Config
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.training_rows import Histories, ImpressionRows
from bahe_tasks.data_interval import end_us
from bahe_tasks.stages.histories_as_of import histories_as_of
from bahe_tasks.stages.pair_items import describe_items, given_titles, pair_columns
from bahe_tasks.stages.pair_sums import pair_sums
from bahe_tasks.stages.pair_texts import index_of_texts, title_rows
from bahe_tasks.stages.score_rows import score_rows
from bahe_tasks.stages.state_as_of import StateAsOf, active_state
from bahe_tasks.stores.promotion_rules import ModelVersion


def score_with_histories(
    frame: pd.DataFrame, model: BaheCtrModel, champion: ModelVersion, config: Config
) -> tuple[np.ndarray, int]:
    """Return the click probability of each pair (P,), and how many users have no behavior that the model reads."""
    day = champion.day
    users, items = (sorted(frame[name].unique()) for name in ("user_id", "item_id"))
    history = histories_as_of(users, day, config)
    titles, known = describe_items(items, day, config)
    titles |= given_titles(frame)
    index = index_of_texts([*history.texts["text"].to_pylist(), *titles.values()], model, day, config)

    row = pd.Index(users).get_indexer(frame["user_id"])
    cat, num = pair_columns(frame, known)
    end = np.full(len(frame), end_us(day), np.int64)
    rows = ImpressionRows(
        impression_ids=np.arange(len(frame)).astype(object),
        user_ids=frame["user_id"].to_numpy(dtype=object),
        item_ids=frame["item_id"].to_numpy(dtype=object),
        shown_at=end,
        as_of=end,
        labels=np.zeros(len(frame), np.float32),
        title_rows=title_rows(index, titles, frame["item_id"]),
        histories={
            feature: Histories(h.behavior_rows, h.occurred_at, h.starts[row], h.ends[row])
            for feature, h in history.histories(index).items()
        },
        cat=cat,
        num=num,
        sums=pair_sums(
            frame, titles, cat, StateAsOf(active_state(users, items, list(titles.values()), day, config), day)
        ),
    )
    probabilities = score_rows(model, rows, index.vectors, config)
    with_history = history.events["user_id"][history.events["feature"].isin(model.features)].nunique()
    return probabilities, len(users) - with_history
