"""MovieLens 100K: 100,000 ratings by 943 users at the times they were given, from September 1997 to April 1998, of the `recbole` package.

A click is a rating of four stars or more. Most users come once, rate a hundred films in a sitting and never return.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.public_logs.rows import Row, instant, records

LIKED_FROM = 4


def tables() -> dict[str, pd.DataFrame]:
    """Read ratings, items and users of the installed package, which need not be importable. Raises `ModuleNotFoundError`."""
    package = find_spec("recbole")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'recbole'")
    folder = Path(package.origin).parent / "dataset_example" / "ml-100k"
    return {name: _table(folder / f"ml-100k.{name}") for name in ("inter", "item", "user")}


def rows(inter: pd.DataFrame, item: pd.DataFrame, user: pd.DataFrame) -> Iterator[Row]:
    """Tables of texts: ratings (user_id, item_id, rating of 1 to 5, timestamp in seconds), items (item_id, movie_title,
    release_year, class, which is "GENRE GENRE") and users (user_id, age, gender, occupation).
    """
    films = {film.item_id: film for film in records(item.rename(columns={"class": "genres"}))}
    people = {person.user_id: person for person in records(user)}
    ratings = inter.assign(timestamp=inter.timestamp.astype(float)).sort_values(["timestamp", "user_id", "item_id"])
    landed: set[str] = set()
    for rating in records(ratings):
        time = datetime.fromtimestamp(rating.timestamp, UTC)
        day, at, film = time.date(), instant(time), films[rating.item_id]
        yield from _rating_rows(rating, people[rating.user_id], film, day, at)
        if rating.item_id not in landed:
            landed.add(rating.item_id)
            yield Row("items", day, _item(film, at))


def _rating_rows(rating: Any, person: Any, film: Any, day: date, at: str) -> Iterator[Row]:
    stars = int(rating.rating)
    who = {"user_id": rating.user_id, "item_id": rating.item_id}
    of_person = {"cat_gender": person.gender, "cat_occupation": person.occupation, "num_age": int(person.age)}
    impression = {"impression_id": f"{rating.user_id}-{rating.item_id}", **who, "shown_at": at, **of_person}
    yield Row("impressions", day, {**impression, "label": int(stars >= LIKED_FROM)})
    feature = "liked" if stars >= LIKED_FROM else "disliked"
    yield Row(
        "behavior_events", day, {**who, "feature": feature, "occurred_at": at, "text": _text(film), "value": stars}
    )


def _item(film: Any, at: str) -> dict[str, Any]:
    genres = film.genres.split()
    item = {
        "item_id": film.item_id,
        "title": _text(film),
        "updated_at": at,
        "cat_genre": genres[0] if genres else "none",
    }
    return item | ({"num_year": int(film.release_year)} if film.release_year.isdigit() else {})


def _text(film: Any) -> str:
    genres = ", ".join(film.genres.split())
    return f"{film.movie_title} ({film.release_year})" + (f" · {genres}" if genres else "")


def _table(path: Path) -> pd.DataFrame:
    """Read a file of RecBole: columns are called NAME:TYPE."""
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    return table.rename(columns=lambda name: name.partition(":")[0])
