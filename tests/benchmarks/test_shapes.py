"""The shapes a log is told in: what stays, what is told otherwise."""

from __future__ import annotations

import json
from datetime import date

import pytest
from typer.testing import CliRunner

from bahe_tasks.landing import landed_files
from bahe_tasks.schemas import SOURCES
from bahe_tasks.sources.landing_files import json_lines, landing_file, write_whole
from benchmarks.public_logs.shapes import BOILERPLATE, SHAPES, app, reshape

FIRST, NEXT = date(2013, 5, 1), date(2013, 5, 2)
FILM = {
    "item_id": "f",
    "updated_at": "2013-05-01T00:00:00Z",
    "title": "A Film (1985)",
    "cat_genre": "Crime",
    "num_year": 1985,
}


def shown(day, number, label):
    """The impression of the film and the event that tells how it was liked."""
    at = f"{day}T10:00:0{number}Z"
    impression = {"impression_id": f"{day}-{number}", "user_id": "u", "item_id": "f", "shown_at": at, "label": label}
    feature = "liked" if label else "disliked"
    event = {"user_id": "u", "feature": feature, "occurred_at": at, "text": FILM["title"], "item_id": "f", "value": 8}
    return impression, event


@pytest.fixture
def landing(tmp_path):
    """Two days, on each of which the same film is liked and disliked; it lands on the first."""
    for day, items in ((FIRST, [FILM]), (NEXT, [])):
        impressions, events = zip(*(shown(day, n, n) for n in (0, 1)), strict=True)
        for source, rows in (("impressions", impressions), ("behavior_events", events), ("items", items)):
            if rows:
                write_whole(landing_file(tmp_path / "landing", source, day, "a.jsonl"), json_lines(rows))
    return tmp_path / "landing"


def rows_of(folder, source, day):
    return [json.loads(line) for file in landed_files(folder, source, day) for line in file.read_text().splitlines()]


def shaped(landing, name, day=NEXT):
    out = landing.parent / name
    counts = reshape(landing, out, SHAPES[name])
    assert counts["impressions"] == 4
    told = [(row["shown_at"], row["label"]) for row in rows_of(out, "impressions", day)]
    assert told == [(row["shown_at"], row["label"]) for row in rows_of(landing, "impressions", day)]
    return {source: rows_of(out, source, day) for source in SOURCES}


def test_no_item_is_met_again(landing):
    found = shaped(landing, "unique_items")
    ids = [f"{NEXT}-0", f"{NEXT}-1"]
    for source in SOURCES:
        assert [row["item_id"] for row in found[source]] == ids
    assert [row["title"] for row in found["items"]] == [FILM["title"]] * 2
    assert {row["updated_at"] for row in found["items"]} == {f"{NEXT}T00:00:00Z"}


def test_no_user_comes_back(landing):
    found = shaped(landing, "daily_users")
    assert {row["user_id"] for source in ("impressions", "behavior_events") for row in found[source]} == {f"u {NEXT}"}


def test_one_feature_and_no_columns(landing):
    assert [row["feature"] for row in shaped(landing, "one_feature")["behavior_events"]] == ["liked"]
    assert set(shaped(landing, "one_feature", FIRST)["items"][0]) == {"item_id", "updated_at", "title"}


def test_six_features_tell_the_decade(landing):
    assert [row["feature"] for row in shaped(landing, "six_features")["behavior_events"]] == [
        "disliked_old",
        "liked_old",
    ]


def test_texts_go_or_get_longer(landing):
    assert "title" not in shaped(landing, "no_titles", FIRST)["items"][0]
    found = shaped(landing, "boilerplate", FIRST)
    long = f"{BOILERPLATE} {FILM['title']}"
    assert [row["text"] for row in found["behavior_events"]] == [long, long]
    assert found["items"][0]["title"] == long
    assert shaped(landing, "ids_alone", FIRST) | {"impressions": []} == {source: [] for source in SOURCES}


def test_an_unknown_shape_is_wrong_use(landing):
    answer = CliRunner().invoke(app, ["round", str(landing), str(landing.parent / "out")])
    assert (answer.exit_code, "not among" in answer.output) == (2, True)


def test_two_shapes_are_not_mixed(landing):
    out = str(landing.parent / "out")
    assert CliRunner().invoke(app, ["boilerplate", str(landing), out]).exit_code == 0
    assert CliRunner().invoke(app, ["ids_alone", str(landing), out]).exit_code == 2
    assert rows_of(landing.parent / "out", "items", FIRST)[0]["title"].startswith(BOILERPLATE)
