from datetime import date

import pytest

from bahe_tasks.landing import (
    LandingNotFoundError,
    landed_days,
    landed_files,
    landing_fingerprint,
    not_read,
    passed_over,
)

DAY = date(2024, 1, 2)


@pytest.fixture
def landing(tmp_path):
    folder = tmp_path / "impressions" / "dt=2024-01-02"
    folder.mkdir(parents=True)
    (folder / "b.jsonl").write_text("{}\n")
    (folder / "a.csv").write_text("x\n")
    (folder / ".b.jsonl.crc").write_text("")
    (folder / "_SUCCESS").write_text("")
    (tmp_path / "impressions" / "dt=2024-01-03").mkdir()
    (tmp_path / "impressions" / "notes").mkdir()
    return tmp_path


def test_files_are_listed_by_name_without_markers(landing):
    assert [path.name for path in landed_files(landing, "impressions", DAY)] == ["a.csv", "b.jsonl"]


def test_a_day_with_an_empty_folder_has_not_landed(landing):
    assert landed_days(landing, "impressions") == [DAY]
    assert landed_days(landing, "items") == []


def test_the_fingerprint_follows_names_and_bytes(landing):
    before = landing_fingerprint(landing, "impressions", DAY)
    assert landing_fingerprint(landing, "impressions", DAY) == before
    (landing / "impressions/dt=2024-01-02/b.jsonl").write_text('{"a": 1}\n')
    changed = landing_fingerprint(landing, "impressions", DAY)
    (landing / "impressions/dt=2024-01-02/b.jsonl").rename(landing / "impressions/dt=2024-01-02/c.jsonl")
    assert len({before, changed, landing_fingerprint(landing, "impressions", DAY)}) == 3


def test_a_missing_landing_folder_says_how_to_fill_one(tmp_path):
    with pytest.raises(LandingNotFoundError, match="bahe synthesize"):
        landed_days(tmp_path / "nowhere", "items")


def test_a_landing_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "landing").touch()
    with pytest.raises(LandingNotFoundError, match="landing is not a folder"):
        landed_days(tmp_path / "landing", "items")


def test_folders_and_names_that_are_no_day_or_no_file_are_passed_over(landing):
    (landing / "impressions/dt=2023-02-29").mkdir()
    (landing / "impressions/dt=2023-02-29/a.csv").write_text("x\n")
    (landing / "impressions/dt=2024-01-02/spark.csv").mkdir()
    assert landed_days(landing, "impressions") == [DAY]
    assert [path.name for path in landed_files(landing, "impressions", DAY)] == ["a.csv", "b.jsonl"]


def test_of_many_names_that_are_passed_over_the_first_are_told():
    told = not_read([f"items/dt=2024-01-02/part-{n}.gz" for n in range(3000)])
    assert told.endswith("part-4.gz and 2995 more")
    assert not_read(["items/dt=2024-01-02/a/"]).endswith(".parquet: items/dt=2024-01-02/a/")


def test_what_is_passed_over_is_named_but_for_hidden_names(landing):
    folder = landing / "impressions" / "dt=2024-01-02"
    (folder / "c.jsonl.gz").touch()
    (folder / "hour=00").mkdir()
    assert passed_over(landing, "impressions", DAY) == [
        "impressions/dt=2024-01-02/c.jsonl.gz",
        "impressions/dt=2024-01-02/hour=00/",
    ]
    assert passed_over(landing, "items", DAY) == []
