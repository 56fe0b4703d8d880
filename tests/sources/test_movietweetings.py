"""MovieTweetings importer: what becomes of every line. The small source below is made up; its counts can be read off it."""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from landed_rows import rows as landed
from landed_rows import tree

from bahe_tasks.sources.movietweetings import MovieTweetingsError, SkippedLine, import_movietweetings

MOVIES = (
    b"0000001::First (1999)::Drama|War\n"
    b"0000002::Second: The Return (2013)::\n"
    b"0000003::Never rated (2001)::Comedy\n"
    b"0000001::First again (2000)::Horror\n"
    b"0000004::Broken \xff (2001)::Comedy\n"
)
# 1380023999 is 2013-09-24T11:59:59Z; 1380067199 the last second of that day, 1380067200 the first of the next.
RATINGS = (
    b"7::0000001::8::1380023999\n"
    b"7::0000002::7::1380067199\n"
    b"8::0000001::10::1380067200\n"
    b"8::0000009::0::1380067201\n"
    b"8::0000001::11::1380067202\n"
    b"8::0000001\n"
    b"9::0000001::5::soon\n"
    b"7::0000001::8::1380023999\n"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "movies.dat").write_bytes(MOVIES)
    (folder / "ratings.dat").write_bytes(RATINGS)
    return folder


def test_every_line_is_landed_or_reported_with_its_number(source: Path, tmp_path: Path) -> None:
    counts = import_movietweetings(source, tmp_path / "landing")
    assert (counts.rating_lines, counts.movie_lines) == (8, 5)
    assert (counts.impressions, counts.behavior_events, counts.untitled_ratings) == (5, 4, 1)
    assert (counts.items, counts.unrated_movies, counts.days) == (2, 1, 2)
    assert counts.skipped == (
        SkippedLine("ratings.dat", 5, "the rating '11' is not a whole number from 0 to 10"),
        SkippedLine("ratings.dat", 6, "2 fields instead of user::movie::rating::seconds"),
        SkippedLine("ratings.dat", 7, "the time 'soon' is not in seconds since 1970"),
        SkippedLine("movies.dat", 4, "movie 0000001 stands on an earlier line already"),
        SkippedLine("movies.dat", 5, "not UTF-8"),
    )
    assert len(landed(tmp_path / "landing", "impressions")) == counts.impressions
    assert len(landed(tmp_path / "landing", "behavior_events")) == counts.behavior_events
    assert len(landed(tmp_path / "landing", "items")) == counts.items


def test_a_byte_order_mark_is_no_part_of_the_first_line(source: Path, tmp_path: Path) -> None:
    counts = import_movietweetings(source, tmp_path / "plain")
    for file in source.iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert import_movietweetings(source, tmp_path / "marked") == counts
    assert tree(tmp_path / "marked") == tree(tmp_path / "plain")


def test_label_and_feature_turn_at_rating_eight(source: Path, tmp_path: Path) -> None:
    import_movietweetings(source, tmp_path)
    labels = {(row["user_id"], row["item_id"]): row["label"] for row in landed(tmp_path, "impressions")}
    features = {(row["user_id"], row["value"]): row["feature"] for row in landed(tmp_path, "behavior_events")}
    assert labels == {("7", "0000001"): 1, ("7", "0000002"): 0, ("8", "0000001"): 1, ("8", "0000009"): 0}
    assert features == {("7", 8): "liked", ("7", 7): "disliked", ("8", 10): "liked"}


def test_day_ends_at_midnight_utc(source: Path, tmp_path: Path) -> None:
    import_movietweetings(source, tmp_path)
    assert landed(tmp_path, "impressions", "2013-09-24")[-1]["shown_at"] == "2013-09-24T23:59:59Z"
    assert landed(tmp_path, "impressions", "2013-09-25")[0]["shown_at"] == "2013-09-25T00:00:00Z"


def test_event_happens_at_the_instant_of_its_impression(source: Path, tmp_path: Path) -> None:
    import_movietweetings(source, tmp_path)
    shown = Counter((r["user_id"], r["item_id"], r["shown_at"]) for r in landed(tmp_path, "impressions"))
    happened = Counter((r["user_id"], r["item_id"], r["occurred_at"]) for r in landed(tmp_path, "behavior_events"))
    assert shown - happened == Counter({("8", "0000009", "2013-09-25T00:00:01Z"): 1})  # the movie without a title
    assert not happened - shown


def test_item_lands_once_on_the_day_of_its_first_rating_with_the_text_of_its_events(
    source: Path, tmp_path: Path
) -> None:
    import_movietweetings(source, tmp_path)
    assert landed(tmp_path, "items") == [
        {
            "item_id": "0000001",
            "title": "First (1999) · Drama, War",
            "updated_at": "2013-09-24T00:00:00Z",
            "cat_genre": "Drama",
            "cat_decade": "1990s",
            "num_year": 1999,
        },
        {
            "item_id": "0000002",
            "title": "Second: The Return (2013)",
            "updated_at": "2013-09-24T00:00:00Z",
            "cat_genre": "none",
            "cat_decade": "2010s",
            "num_year": 2013,
        },
    ]
    titles = {row["item_id"]: row["title"] for row in landed(tmp_path, "items")}
    assert all(row["text"] == titles[row["item_id"]] for row in landed(tmp_path, "behavior_events"))


def test_line_that_stands_twice_lands_twice_with_equal_content(source: Path, tmp_path: Path) -> None:
    import_movietweetings(source, tmp_path)
    rows = [json.dumps(row) for row in landed(tmp_path, "impressions")]
    assert Counter(Counter(rows).values()) == {1: 3, 2: 1}


def test_importing_again_changes_nothing(source: Path, tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    assert import_movietweetings(source, landing).files_changed == 5
    before = {path: path.stat().st_mtime_ns for path in landing.rglob("*")}
    assert import_movietweetings(source, landing).files_changed == 0
    assert {path: path.stat().st_mtime_ns for path in landing.rglob("*")} == before


def test_range_lands_its_ratings_and_earlier_titles_and_a_wider_import_only_adds(source: Path, tmp_path: Path) -> None:
    counts = import_movietweetings(source, tmp_path / "late", first=date(2013, 9, 25))
    assert (counts.impressions, counts.outside_range, counts.items) == (2, 3, 2)
    narrow = tree(tmp_path / "late")
    assert sorted(narrow) == [
        "behavior_events/dt=2013-09-25/movietweetings.jsonl",
        "impressions/dt=2013-09-25/movietweetings.jsonl",
        "items/dt=2013-09-24/movietweetings.jsonl",
    ]
    import_movietweetings(source, tmp_path / "late")
    assert narrow.items() <= tree(tmp_path / "late").items()


def test_files_of_another_edition_whose_days_have_no_rows_any_more_are_removed(source: Path, tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    import_movietweetings(source, landing)
    other = landing / "impressions" / "dt=2013-09-25" / "other.jsonl"
    other.write_text("")
    (source / "ratings.dat").write_bytes(RATINGS.splitlines(keepends=True)[1])
    import_movietweetings(source, landing, last=date(2013, 9, 24))
    assert len(landed(landing, "impressions")) == 3, "the day after was not imported again"
    counts = import_movietweetings(source, landing)
    assert (counts.files_changed, counts.files_removed) == (0, 2)
    assert [row["impression_id"] for row in landed(landing, "impressions")] == ["7-0000002-1380067199"]
    assert [row["item_id"] for row in landed(landing, "items")] == ["0000002"]
    assert other.exists()


@pytest.mark.parametrize("missing", ["ratings.dat", "movies.dat"])
def test_incomplete_source_folder_is_an_error_that_names_the_file(source: Path, tmp_path: Path, missing: str) -> None:
    (source / missing).unlink()
    with pytest.raises(MovieTweetingsError, match=f"{missing} does not exist"):
        import_movietweetings(source, tmp_path / "landing")
    assert not (tmp_path / "landing").exists()


def test_source_without_a_readable_rating_is_an_error_that_quotes_the_first_reason(
    source: Path, tmp_path: Path
) -> None:
    (source / "ratings.dat").write_bytes(b"7,0000001,8,1380023999\n")
    with pytest.raises(MovieTweetingsError, match="line 1: 1 fields instead of"):
        import_movietweetings(source, tmp_path / "landing")


def test_range_without_ratings_is_an_error_that_names_the_covered_days(source: Path, tmp_path: Path) -> None:
    with pytest.raises(MovieTweetingsError, match="covers 2013-09-24 to 2013-09-25"):
        import_movietweetings(source, tmp_path / "landing", last=date(2012, 1, 1))


PUBLIC = Path(os.environ.get("BAHE_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "movietweetings"


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the public data set is not here; BAHE_SHARED names its folder")
def test_public_data_lands_line_by_line(tmp_path: Path) -> None:
    counts = import_movietweetings(PUBLIC, tmp_path, first=date(2013, 9, 24), last=date(2013, 10, 7))
    ratings = (PUBLIC / "ratings.dat").read_text(encoding="utf-8").splitlines()
    # 1379980800 is 2013-09-24T00:00:00Z, 1381190400 is 2013-10-08T00:00:00Z.
    chosen = [line for line in ratings if 1379980800 <= int(line.split("::")[3]) < 1381190400]
    assert counts.rating_lines == len(ratings)
    assert counts.impressions == counts.behavior_events == len(chosen) == len(landed(tmp_path, "impressions"))
    assert sum(row["label"] for row in landed(tmp_path, "impressions")) == sum(
        int(line.split("::")[2]) >= 8 for line in chosen
    )
    assert counts.skipped == ()
    assert len({row["item_id"] for row in landed(tmp_path, "items")}) == counts.items
