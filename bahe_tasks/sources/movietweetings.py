"""MovieTweetings → landing contract: real ratings with titles and times, as impressions, behaviors and items.

One rating line becomes one impression (label = rating ≥ 8) and, at the same instant, one behavior event of the text
feature `liked` (≥ 8) or `disliked`. A history holds what happened strictly before an impression, so a rating never
helps to predict itself. The text of an event is the title text of its movie, word for word, so both share one key.

Unusual: a movie lands on the day of its first rating in the whole file, whatever range is imported; a later, wider
import then only adds files. Of another edition of the data, files of imported days that have no rows any more are removed. A line that cannot be read is skipped and reported with its number, never dropped in
silence; a line that stands twice is landed twice, for the contract's duplicate rule to count.
"""

from __future__ import annotations

import codecs
import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bahe_tasks.data_interval import start_of
from bahe_tasks.landing import landed_days
from bahe_tasks.schemas import SOURCES
from bahe_tasks.sources.landing_files import json_lines, landing_file, write_whole
from bahe_tasks.wrong_use import WrongUseError

LIKED_FROM = 8
"""Ratings from here on (of 0 to 10) are label 1; in the public data they are half of all."""

_FILE_NAME = "movietweetings.jsonl"
_YEAR = re.compile(r"\((\d{4})\)\s*$")


class MovieTweetingsError(WrongUseError):
    """The source folder is missing, incomplete, or holds nothing that can be imported."""


@dataclass(frozen=True)
class SkippedLine:
    """A source line that could not be read: `file`, `line` (from 1) and why."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True)
class ImportCounts:
    """What became of every line.

    rating_lines = impressions + outside_range + skipped lines of ratings.dat;
    behavior_events = impressions − untitled_ratings;
    movie_lines = items + unrated_movies + skipped lines of movies.dat.
    """

    rating_lines: int
    movie_lines: int
    days: int
    impressions: int
    behavior_events: int
    items: int
    untitled_ratings: int
    outside_range: int
    unrated_movies: int
    files_changed: int
    files_removed: int  # of an earlier import
    skipped: tuple[SkippedLine, ...]


class _Rating(NamedTuple):
    unix_s: int
    user_id: str
    movie_id: str
    rating: int

    @property
    def day(self) -> date:
        return datetime.fromtimestamp(self.unix_s, UTC).date()


class _Movie(NamedTuple):
    title: str
    genres: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{self.title} · {', '.join(self.genres)}" if self.genres else self.title


def import_movietweetings(
    src: Path, landing: Path, *, first: date | None = None, last: date | None = None
) -> ImportCounts:
    """Land the ratings of the days `first` to `last` (inclusive; `None`: open) from SRC/ratings.dat and movies.dat.

    Movies first rated before `first` are landed too, each on its own day: they are the titles of later impressions.
    Raises `MovieTweetingsError` when a file is missing, nothing in it is readable, or no rating lies in the range.
    """
    skipped: list[SkippedLine] = []
    ratings, rating_lines = _read_ratings(src, skipped)
    movies, movie_lines = _read_movies(src, skipped)
    chosen = sorted(r for r in ratings if (first is None or r.day >= first) and (last is None or r.day <= last))
    if not chosen:
        days = sorted({r.day for r in ratings})
        raise MovieTweetingsError(
            f"no rating between {first or 'the beginning'} and {last or 'the end'}; "
            f"{src / 'ratings.dat'} covers {days[0]} to {days[-1]}"
        )

    by_day: dict[date, list[_Rating]] = defaultdict(list)
    for rating in chosen:
        by_day[rating.day].append(rating)
    days_with_ratings = len(by_day)
    new_movies: dict[date, list[str]] = defaultdict(list)
    for movie_id, day in _first_days(ratings).items():
        if movie_id in movies and (last is None or day <= last):
            new_movies[day].append(movie_id)

    files_changed = files_removed = events = 0
    landed: set[Path] = set()
    for day in sorted(by_day.keys() | new_movies.keys()):
        day_events = [_event_row(r, movies[r.movie_id]) for r in by_day[day] if r.movie_id in movies]
        events += len(day_events)
        rows = {
            "impressions": [_impression_row(r) for r in by_day[day]],
            "behavior_events": day_events,
            "items": [_item_row(movie_id, movies[movie_id], day) for movie_id in sorted(new_movies[day])],
        }
        for source, source_rows in rows.items():
            if source_rows:
                path = landing_file(landing, source, day, _FILE_NAME)
                files_changed += write_whole(path, json_lines(source_rows))
                landed.add(path)
    for source in SOURCES:
        for day in landed_days(landing, source):
            path = landing_file(landing, source, day, _FILE_NAME)
            imported = (first is None or day >= first or source == "items") and (last is None or day <= last)
            if imported and path not in landed and path.is_file():
                path.unlink()
                files_removed += 1

    items = sum(map(len, new_movies.values()))
    return ImportCounts(
        rating_lines=rating_lines,
        movie_lines=movie_lines,
        days=days_with_ratings,
        impressions=len(chosen),
        behavior_events=events,
        items=items,
        untitled_ratings=len(chosen) - events,
        outside_range=len(ratings) - len(chosen),
        unrated_movies=len(movies) - items,
        files_changed=files_changed,
        files_removed=files_removed,
        skipped=tuple(skipped),
    )


def _first_days(ratings: list[_Rating]) -> dict[str, date]:
    first_s: dict[str, int] = {}
    for rating in ratings:
        first_s[rating.movie_id] = min(rating.unix_s, first_s.get(rating.movie_id, rating.unix_s))
    return {movie_id: datetime.fromtimestamp(unix_s, UTC).date() for movie_id, unix_s in first_s.items()}


def _impression_row(rating: _Rating) -> dict[str, Any]:
    return {
        "impression_id": f"{rating.user_id}-{rating.movie_id}-{rating.unix_s}",
        "user_id": rating.user_id,
        "item_id": rating.movie_id,
        "shown_at": _iso(rating.unix_s),
        "label": int(rating.rating >= LIKED_FROM),
    }


def _event_row(rating: _Rating, movie: _Movie) -> dict[str, Any]:
    return {
        "user_id": rating.user_id,
        "feature": "liked" if rating.rating >= LIKED_FROM else "disliked",
        "occurred_at": _iso(rating.unix_s),
        "text": movie.text,
        "item_id": rating.movie_id,
        "value": rating.rating,
    }


def _item_row(movie_id: str, movie: _Movie, day: date) -> dict[str, Any]:
    row: dict[str, Any] = {
        "item_id": movie_id,
        "title": movie.text,
        "updated_at": _iso(int(start_of(day).timestamp())),
        "cat_genre": movie.genres[0] if movie.genres else "none",
    }
    if match := _YEAR.search(movie.title):
        row |= {"cat_decade": f"{match[1][:3]}0s", "num_year": int(match[1])}
    return row


def _iso(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read_ratings(src: Path, skipped: list[SkippedLine]) -> tuple[list[_Rating], int]:
    """Return the readable ratings in file order and the number of lines."""
    ratings, lines = [], _lines(src, "ratings.dat")
    for number, line in enumerate(lines, start=1):
        try:
            ratings.append(_parse_rating(line))
        except ValueError as error:
            skipped.append(SkippedLine("ratings.dat", number, str(error)))
    if not ratings:
        why = f"; line {skipped[0].line}: {skipped[0].reason}" if skipped else ""
        raise MovieTweetingsError(
            f"{src / 'ratings.dat'} holds no readable rating{why}; expected user::movie::rating::seconds"
        )
    return ratings, len(lines)


def _parse_rating(line: bytes) -> _Rating:
    fields = _decoded(line).split("::")
    if len(fields) != 4:
        raise ValueError(f"{len(fields)} fields instead of user::movie::rating::seconds")
    user_id, movie_id, rating, unix_s = (field.strip() for field in fields)
    if not user_id or not movie_id:
        raise ValueError("user or movie is empty")
    if not rating.isdecimal() or int(rating) > 10:
        raise ValueError(f"the rating {rating!r} is not a whole number from 0 to 10")
    if not unix_s.isdecimal() or len(unix_s) > 11:
        raise ValueError(f"the time {unix_s!r} is not in seconds since 1970")
    return _Rating(int(unix_s), user_id, movie_id, int(rating))


def _read_movies(src: Path, skipped: list[SkippedLine]) -> tuple[dict[str, _Movie], int]:
    """Return the readable movies by id and the number of lines; of two lines with one id the first is taken."""
    movies: dict[str, _Movie] = {}
    lines = _lines(src, "movies.dat")
    for number, line in enumerate(lines, start=1):
        try:
            movie_id, movie = _parse_movie(line)
            if movie_id in movies:
                raise ValueError(f"movie {movie_id} stands on an earlier line already")
            movies[movie_id] = movie
        except ValueError as error:
            skipped.append(SkippedLine("movies.dat", number, str(error)))
    return movies, len(lines)


def _parse_movie(line: bytes) -> tuple[str, _Movie]:
    fields = [field.strip() for field in _decoded(line).split("::")]
    if len(fields) < 3:
        raise ValueError(f"{len(fields)} fields instead of movie::title (year)::genres")
    movie_id, title, genres = fields[0], "::".join(fields[1:-1]), fields[-1]
    if not movie_id or not title:
        raise ValueError("movie or title is empty")
    return movie_id, _Movie(title, tuple(genre for genre in genres.split("|") if genre))


def _lines(src: Path, name: str) -> list[bytes]:
    path = src / name
    if not path.is_file():
        raise MovieTweetingsError(
            f"{path} does not exist; SRC must be a MovieTweetings folder with ratings.dat and movies.dat"
        )
    return path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
