"""How torch's threads wait for each other: asleep, so that a program beside this one does not slow it down many times.

By default they spin. On two cores beside two busy programs a training step of MiniLM's last layer took 372 ms spinning and
127 ms asleep; alone on the machine 56 and 69, or 75 and 75 a minute later. Airflow's own programs are such company.
"""

from __future__ import annotations

import os


def sleep_while_waiting() -> None:
    """Say so to OpenMP, unless the environment says how; in effect where torch has not been imported yet."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
