"""What a person reads in a table."""

import math

import pytest
from rich.console import Console
from typer.testing import CliRunner

from bahe_tasks.cli import app
from bahe_tasks.commands import console, days
from bahe_tasks.commands.console import cell, show, table_of


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.63214, "0.6321"), (92.78, "92.8"), (3, "3"), (True, "True"), (None, "–"), (math.nan, "–"), ("done", "done")],
)
def test_numbers_are_short_and_absent_ones_a_dash(value, text):
    assert cell(value) == text


def test_a_day_of_the_status_stands_on_one_line_of_80_columns():
    day = dict.fromkeys(days.STATUS_COLUMNS, 40_000) | dict.fromkeys(days.STATUS_COLUMNS[1:4], 123_456)
    day |= {"day": "2024-01-01", "reuse_rate": 0.98765, "gate": "passed", "champion_version": 12, "stale": False}
    out = Console(width=80, record=True)
    out.print(table_of("Champion", [day], days.STATUS_COLUMNS, headers=days.NARROW))
    row = out.export_text().splitlines()[-1].split()
    assert row == ["2024-01-01", *["123456"] * 3, *["40000"] * 3, "0.9877", "passed", "12", "False"]


def test_what_the_log_names_is_told_as_it_is(capsys, monkeypatch):
    monkeypatch.setattr(console, "log", Console(stderr=True, width=40))
    console.remark("unknown columns ignored: a[b], [/x]")
    assert capsys.readouterr().err == "unknown columns ignored: a[b], [/x]\n"


def test_an_answer_without_a_table_is_in_words(capsys):
    document = {"day": "2024-01-01", "withdrawn_versions": [2, 3], "published": {"users": 4, "items": 5}, "none": []}
    show(document, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "day: 2024-01-01",
        "withdrawn_versions: 2, 3",
        "published: users 4, items 5",
        "none: none",
    ]


def test_an_import_tells_the_first_line_it_skipped(tmp_path):
    (tmp_path / "ratings.dat").write_text("1::2::9::1000000000\n1::2\n1::2::11::1\n")
    (tmp_path / "movies.dat").write_text("2::A film (1999)::Drama\n")
    told = CliRunner().invoke(app, ["import", "movietweetings", str(tmp_path), str(tmp_path / "landing")]).stdout
    first = "ratings.dat line 2: 2 fields instead of user::movie::rating::seconds"
    assert f"skipped: 2 lines; first: {first}\n" in told
