"""Two days through the real Airflow scheduler, against the same days in this process."""

from __future__ import annotations

from datetime import timedelta

import pytest
from conftest import FIRST, Log, small_config

from bahe_tasks.engines.airflow_backfill import run_backfill_in_airflow
from bahe_tasks.engines.inline import run_backfill
from bahe_tasks.stages.read_metrics import read_metrics
from bahe_tasks.stages.read_status import read_status
from bahe_tasks.stores.delta_tables import read_table, table_version
from bahe_tasks.stores.expectations import data_docs_page

pytestmark = [pytest.mark.e2e, pytest.mark.spark, pytest.mark.airflow, pytest.mark.timeout(1200)]
NEXT = FIRST + timedelta(days=1)
COMPARED = ("impressions", "user_sequences", "behavior_embeddings", "progressive_predictions", "user_embeddings")


def test_two_days_in_airflow_give_the_tables_and_metrics_of_two_days_in_process(tmp_path, spark):
    scheduled = small_config(_folder(tmp_path / "scheduled"))
    inline = small_config(_folder(tmp_path / "inline"))
    for config in (scheduled, inline):
        for day in (FIRST, NEXT):
            Log(config.landing_dir).ordinary_day(day, users=12)
    outcomes = run_backfill_in_airflow(scheduled, FIRST, NEXT)
    assert [(outcome.state, outcome.message) for outcome in outcomes] == [("done", "")] * 2
    assert set(outcomes[0].task_states.values()) == {"success"}
    assert outcomes[1].results["promote_champion"]["promoted"]

    list(run_backfill(FIRST, NEXT, inline))
    assert _pages(scheduled) == _pages(inline) != set()
    for name in COMPARED:
        ours, theirs = (sorted(map(str, read_table(c.tables_dir, name).to_pylist())) for c in (scheduled, inline))
        assert ours == theirs
    assert read_metrics(scheduled) == read_metrics(inline)
    assert read_status(scheduled) == read_status(inline)

    versions = {name: table_version(scheduled.tables_dir, name) for name in COMPARED}
    list(run_backfill(FIRST, NEXT, scheduled))  # the other engine finds everything done
    assert {name: table_version(scheduled.tables_dir, name) for name in COMPARED} == versions


def _pages(config):
    docs = data_docs_page(config.home / "gx", FIRST).parent
    return {str(page.relative_to(docs)) for page in docs.rglob("*.html")}


def _folder(path):
    path.mkdir()
    return path
