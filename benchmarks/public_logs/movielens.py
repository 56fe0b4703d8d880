"""MovieLens: 100,004 ratings by 671 users, `dslabs::movielens`.

A click is a rating of four stars or more. Ratings come in order of time, a thousand a day from 2013-01-01 on. Each second of a day
that has ratings becomes a minute, so that those of one second stay equal in time. Stars are doubled, as in MovieTweetings.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.public_logs.rows import FIRST_DAY, Row, minute_of, records

RATINGS_A_DAY = 1000
LIKED_FROM = 8


def rows(ratings: pd.DataFrame) -> Iterator[Row]:
    """Columns userId, movieId, title, year, genres ("A|B"), rating (half to five stars), timestamp (seconds)."""
    ratings = ratings.sort_values(["timestamp", "userId", "movieId"]).reset_index(drop=True)
    landed: set[int] = set()
    for start in range(0, len(ratings), RATINGS_A_DAY):
        of_day = ratings.iloc[start : start + RATINGS_A_DAY]
        day = FIRST_DAY + timedelta(start // RATINGS_A_DAY)
        minutes = np.unique(of_day.timestamp, return_inverse=True)[1]
        for number, minute, rating in zip(of_day.index, minutes, records(of_day), strict=True):
            yield from _rating_rows(
                rating, f"{rating.userId}-{rating.movieId}-{number}", day, minute_of(day, int(minute))
            )
            if rating.movieId not in landed:
                landed.add(rating.movieId)
                yield Row("items", day, _item(rating, day))


def _rating_rows(rating: Any, impression_id: str, day: date, at: str) -> Iterator[Row]:
    value = round(rating.rating * 2)
    who = {"user_id": str(rating.userId), "item_id": str(rating.movieId)}
    yield Row(
        "impressions", day, {"impression_id": impression_id, **who, "shown_at": at, "label": int(value >= LIKED_FROM)}
    )
    feature = "liked" if value >= LIKED_FROM else "disliked"
    event = {**who, "feature": feature, "occurred_at": at, "text": _text(rating), "value": value}
    yield Row("behavior_events", day, event)


def _item(rating: Any, day: date) -> dict[str, Any]:
    genres = _genres(rating)
    item: dict[str, Any] = {
        "item_id": str(rating.movieId),
        "title": _text(rating),
        "updated_at": minute_of(day, 0),
        "cat_genre": genres[0] if genres else "none",
    }
    if not np.isnan(rating.year):
        item |= {"cat_decade": f"{int(rating.year) // 10}0s", "num_year": int(rating.year)}
    return item


def _text(rating: Any) -> str:
    title = str(rating.title) if np.isnan(rating.year) else f"{rating.title} ({int(rating.year)})"
    genres = _genres(rating)
    return f"{title} · {', '.join(genres)}" if genres else title


def _genres(rating: Any) -> list[str]:
    return [genre for genre in str(rating.genres).split("|") if genre not in ("", "(no genres listed)")]
