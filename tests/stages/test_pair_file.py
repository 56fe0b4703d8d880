"""A file of scored pairs is replaced whole or left alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd
import pytest

from bahe_tasks.stages.pair_file import ScoreFileError, check_out, write_pairs

PAIRS = pd.DataFrame({"user_id": ["u"] * 20, "item_id": "i", "click_probability": 0.123456789})
ON_A_DISK_WITH_ROOM_FOR_64_KIB = """
import resource, signal, sys
from pathlib import Path
import pandas as pd
from bahe_tasks.stages.pair_file import write_pairs
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
write_pairs(pd.DataFrame({"user_id": ["u"] * 40_000}), Path(sys.argv[1]))
"""


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_where_the_disk_is_full_the_file_before_stays_and_nothing_else(tmp_path, ending):
    out = tmp_path / f"out{ending}"
    out.write_text("of yesterday")
    command = [sys.executable, "-c", ON_A_DISK_WITH_ROOM_FOR_64_KIB, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "File too large" in done.stderr
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(out.name, "of yesterday")]


def test_the_new_file_has_the_permissions_of_the_one_before(tmp_path):
    out = tmp_path / "out.csv"
    write_pairs(PAIRS, out)
    (tmp_path / "new").touch()
    assert out.stat().st_mode == (tmp_path / "new").stat().st_mode
    out.chmod(0o640)
    write_pairs(PAIRS, out)
    assert out.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_one_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    kept, out = tmp_path / "there" / "kept.2024", tmp_path / "out.parquet"
    out.symlink_to(kept)
    for _ in range(2):
        check_out(out)
        write_pairs(PAIRS, out)
        assert out.is_symlink()
        assert len(pd.read_parquet(kept)) == len(PAIRS)
    assert os.listdir(kept.parent) == [kept.name]


def test_a_pipe_is_written_to(tmp_path):
    out = tmp_path / "out.csv"
    os.mkfifo(out)
    with subprocess.Popen(["cat", str(out)], stdout=subprocess.PIPE) as reader:
        write_pairs(PAIRS[:2], out)
        assert reader.stdout.read().count(b"\n") == 3
    assert out.is_fifo()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any file")
def test_a_file_that_is_read_only_is_not_replaced(tmp_path):
    out = tmp_path / "out.csv"
    out.touch(0o444)
    with pytest.raises(ScoreFileError, match="read-only"):
        check_out(out)
