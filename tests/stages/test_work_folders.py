"""Folders of a day that several processes make, that are killed, or that something has cut short."""

import subprocess
import sys
import threading
from datetime import date

import pytest

from bahe_tasks.config import Config
from bahe_tasks.stages.work_folders import forget_day, kept_folder, scratch_folder

DAY, BEFORE, AFTER = date(2024, 3, 2), date(2024, 3, 1), date(2024, 3, 3)


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(home=tmp_path)


@pytest.fixture
def days(config):
    """() → names of the folders there are."""
    return lambda: sorted(folder.name for folder in (config.home / "work" / "days").glob("*"))


def read(folder):
    text = (folder / "text").read_text()
    if not text.endswith("."):
        raise ValueError("cut short")
    return text


def keep(config, name, *, day=DAY, text="whole.", calls=None):
    def write(folder):
        if calls is not None:
            calls.append(name)
        (folder / "text").write_text(text)

    return kept_folder(day, name, config, write=write, read=read)


def test_what_is_there_is_not_written_again_and_another_name_takes_its_place(config, days):
    calls = []
    assert [keep(config, name, calls=calls) for name in ("a", "a", "b", "b")] == ["whole."] * 4
    assert calls == ["a", "b"]
    assert days() == [f"{DAY}-b"]


def test_what_is_cut_short_is_written_again(config, days):
    keep(config, "a")
    (config.home / "work" / "days" / f"{DAY}-a" / "text").write_text("who")
    assert keep(config, "a") == "whole."
    assert days() == [f"{DAY}-a"]


def test_what_cannot_be_read_even_when_new_is_an_error(config):
    with pytest.raises(ValueError, match="cut short"):
        keep(config, "a", text="who")


def test_an_error_leaves_nothing(config, days):
    def write(folder):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept_folder(DAY, "a", config, write=write, read=read)
    assert days() == []


def test_of_two_that_write_at_once_both_read_the_first_s(config, days):
    both_write, found = threading.Barrier(2), []

    def run(text):
        def write(folder):
            both_write.wait()
            (folder / "text").write_text(text)

        found.append(kept_folder(DAY, "a", config, write=write, read=read))

    threads = [threading.Thread(target=run, args=(text,)) for text in ("one.", "two.")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert days() == [f"{DAY}-a"]


def test_a_day_that_is_done_takes_older_ones_along_but_none_later(config, days):
    for day in (BEFORE, DAY, AFTER):
        keep(config, "a", day=day)
    forget_day(DAY, config)
    assert days() == [f"{AFTER}-a"]


def test_what_a_killed_process_was_writing_is_removed_and_what_a_living_one_writes_is_not(config, days):
    code = (
        "import os, sys; from datetime import date; from pathlib import Path\n"
        "from bahe_tasks.config import Config; from bahe_tasks.stages.work_folders import scratch_folder\n"
        "with scratch_folder(date(2024, 3, 2), Config(home=Path(sys.argv[1]))) as folder: os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(config.home)], check=False).returncode == -9
    assert len(days()) == 1
    with scratch_folder(DAY, config) as mine:
        assert len(days()) == 2
        forget_day(DAY, config)
        assert days() == [mine.name]
    assert days() == []
