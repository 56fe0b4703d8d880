"""How the newest labels of the whole log went: running sums of one key, which the driver keeps.

They are read as of the start of the step of LOG_STEP_US in which an impression asks. A day has few of those, so that
each task can be given all answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bahe_tasks.key_sums import DAY_US, statistics_of
from bahe_tasks.running_sums import LOG_STEP_US, state_key, state_width
from spark_jobs.derived.log_facts import LogFacts
from spark_jobs.derived.scope_sums import KeyedRows, scope_sums, state_rows

_SCOPE = "log"


@dataclass(frozen=True)
class NewestLabels:
    """What one day's impressions read of them."""

    sums: np.ndarray  # (steps of a day, state_width) float64, as of the start of each; NaN where nothing asks in it

    def at(self, asked_us: np.ndarray) -> np.ndarray:
        """Return the sums that are read so long after the start of the day, (R, state_width)."""
        return self.sums[asked_us // LOG_STEP_US]


def newest_labels(facts: LogFacts, state: pa.Table, *, day: date) -> tuple[NewestLabels, pa.Table]:
    """Return what is read of them, and their state at the end of the day. `state`: the newest row of each key of all of a log."""
    of_log = state.filter(pc.field("scope") == _SCOPE)
    found = scope_sums(_SCOPE, _keyed(facts), of_log, day=day)
    sums = np.full((DAY_US // LOG_STEP_US, state_width(_SCOPE)), np.nan)
    sums[facts.steps] = found.answers[:, : state_width(_SCOPE)]
    return NewestLabels(sums), state_rows(_SCOPE, found, day=day)


def _keyed(facts: LogFacts) -> KeyedRows:
    """Return labels as facts of one key, a question at the start of each step, and a row that is neither: a day without
    labels and impressions has the key too."""
    labels, asked = len(facts.labels), len(facts.steps)
    kind = np.repeat([0, 1, 2], [labels, asked, 1])
    time_us = np.concatenate([facts.label_us, facts.steps * LOG_STEP_US, [0]])
    added = statistics_of(_SCOPE, {"label": facts.labels}, math.nan)  # no residual is among them
    return KeyedRows(
        key=np.full(len(kind), state_key(_SCOPE)),
        fact_us=time_us,
        is_fact=kind == 0,
        seen_us=time_us,
        is_seen=np.zeros(len(kind), bool),
        asked_us=time_us,
        is_asked=kind == 1,
        statistics=np.concatenate([added, np.zeros((asked + 1, added.shape[1]))]),
    )
