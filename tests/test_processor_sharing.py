import os
import subprocess
import sys

import pytest

_PROGRAM = """
import os, sys
from bahe_tasks.cli import main
sys.argv = ["bahe", "--help"]
try:
    main()
finally:
    print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
"""


@pytest.mark.parametrize(("given", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_wait_asleep_unless_the_environment_says_how(given, expected):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
    found = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=False
    )
    assert found.stdout.splitlines()[-1] == f"{expected} False", found.stderr
