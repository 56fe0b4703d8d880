"""A log that lacks what some numbers are made of is trained on, and says so on standard error."""

import subprocess
import sys

_RUN = """
import great_expectations.validator.validator  # it takes the warnings of the module `warnings` for itself, and drops them
import numpy as np
from bahe_tasks.running_sums import IMPRESSION_SUMS
from bahe_tasks.stages.fine_tune import _warn_of_lacking_numbers
for known in (0, 1):
    _warn_of_lacking_numbers(np.full((1, len(IMPRESSION_SUMS)), float(known)))
"""


def test_what_a_log_lacks_is_told_beside_great_expectations(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(_RUN)
    told = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stderr
    lines = [line for line in told.splitlines() if "cannot exist in this log" in line]
    assert len(lines) == 1, "the second log lacks nothing"
    assert "no training row has labels of its user known before" in lines[0]
