"""The daily update as an Airflow DAG: one run per calendar day D, the data interval [D, D+1) in UTC.

Owns only what Airflow has to know: order, schedule, pools, retries, assets. Each task calls the stage of the same name.
Unusual: stages are imported inside the task bodies, so that parsing this file loads nothing heavy.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, CronDataIntervalTimetable, Param, dag, task

from bahe_tasks.engines.airflow_task import LandingSensor, airflow_settings, run_stage, skip_with, starts, write_pages

Json = Any  # a small JSON document; annotated as a dict, Airflow would cut it into one XCom a key
SETTINGS = airflow_settings()


def _tables(*names: str) -> list[Asset]:
    return [Asset(name=name, uri=f"bahe://tables/{name}") for name in names]


@task(
    pool="bahe_spark",
    outlets=_tables("behavior_events", "items", "impressions", "quarantine")
    + _tables("user_sequences", "running_sums", "atomic_behaviors", "new_behaviors"),
)
def dedup_behaviors() -> Json:
    """Reads the day's landing; writes the tables of the day, new atomic behaviors and quarantine (Spark)."""
    from bahe_tasks.stages.dedup_behaviors import dedup_behaviors as stage
    from spark_jobs.session import stop_spark_session

    try:
        return run_stage(lambda day, config, params: stage(day, config, force=params["force"]))
    finally:
        stop_spark_session()


@task(outlets=_tables("gate_results"))
def validate_inputs() -> Json:
    """Reads the day's tables; writes `gate_results`. Red when refused, unless `accept_inputs` gives a reason."""
    from bahe_tasks.stages.validate_inputs import validate_inputs as stage

    told = run_stage(lambda day, config, p: stage(day, config, force=p["force"], accept_reason=p["accept_inputs"]))
    if told["gate"] == "accepted":
        write_pages()
    return told


@task(pool="bahe_training", outlets=_tables("behavior_embeddings"))
def encode_behaviors() -> Json:
    """Reads the new atomic behaviors; writes their `behavior_embeddings` (shallow layers, torch).

    In the pool of one slot, so that two runs at once do not encode one text twice.
    """
    from bahe_tasks.stages.encode_behaviors import encode_behaviors as stage

    return run_stage(lambda day, config, params: stage(day, config, force=params["force"]))


@task(pool="bahe_training", outlets=_tables("progressive_predictions"))
def fine_tune() -> Json:
    """Scores the day with the parent (`progressive_predictions`), then trains from it; logs an MLflow run.

    Skipped, with all that follows, when the day has nothing to train on; the champion stays.
    """
    from bahe_tasks.stages.fine_tune import fine_tune as stage

    trained = run_stage(lambda day, config, params: stage(day, config, force=params["force"]))
    return trained if trained["state"] == "trained" else skip_with(trained)


@task(pool="bahe_training")
def register_challenger(trained: Json) -> Json:
    """Reads the MLflow run; writes a version of the registered model with its lineage, alias `challenger`."""
    from bahe_tasks.stages.register_challenger import register_challenger as stage

    return run_stage(lambda day, config, _: stage(day, config, run_id=trained["run_id"]))


@task(pool="bahe_training", outlets=_tables("gate_results"))
def validate_challenger(made: Json) -> Json:
    """Reads the day's tables, embeddings, held-out rows; writes `gate_results`. Red when the challenger is refused."""
    from bahe_tasks.stages.validate_challenger import validate_challenger as stage

    version = made["version"]
    passed = run_stage(lambda day, config, p: stage(day, config, version=version, force=p["force"]))
    write_pages()
    return passed | {"version": version}


@task(pool="bahe_training")
def promote_champion(passed: Json) -> Json:
    """Moves the alias `champion` to the version that passed, unless the champion has seen a later day."""
    from bahe_tasks.stages.promote_champion import promote_champion as stage

    version = passed["version"]
    return run_stage(lambda day, config, _: stage(day, config, version=version)) | {"version": version}


@task(pool="bahe_training", outlets=_tables("user_embeddings", "item_embeddings", "published_sums"))
def publish_embeddings(promoted: Json) -> Json:
    """Writes `user_embeddings`, `item_embeddings` and `published_sums` of this run's version when it is the champion."""
    from bahe_tasks.stages.publish_embeddings import publish_embeddings as stage

    return run_stage(lambda day, config, _: stage(day, config, version=promoted["version"]))


@dag(
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    **starts(SETTINGS),
    max_active_runs=1,
    tags=["bahe", "ctr", "daily"],
    params={
        "day": Param(None, type=["null", "string"], format="date", description="the day to run, whatever the date"),
        "force": Param(False, type="boolean", description="run stages even where their output is up to date"),
        "accept_inputs": Param(None, type=["null", "string"], description="reason to accept refused inputs"),
    },
    default_args={
        "owner": "bahe",
        "retries": SETTINGS.retries,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
    },
)
def bahe_daily_update() -> None:
    """Keeps the click-through-rate model fresh with one day of the log.

    **Which day**: the parameter `day`, else the start of the data interval; a run with neither fails. A backfill of a
    date is for that day; a run triggered by hand with a date is for the day before, as Airflow counts. Days run by
    themselves from `airflow.schedule_start` on; where bahe.yaml has none, none does, whatever *Next Run* says. A run by hand
    with a date before it runs no task, and Airflow calls that a success: give the parameter `day` and no date.

    **Outcome**: a refused gate makes its task red and the champion stays. A day without impressions is green, with the
    model's tasks skipped. Every task may run again: what is up to date writes nothing. A day trained anew, filled in
    or accepted makes the later days stale; backfill them too.
    """
    landed, trained = dedup_behaviors(), fine_tune()
    if SETTINGS.wait_for:
        LandingSensor(task_id="wait_for_landing", settings=SETTINGS) >> landed
    landed >> validate_inputs() >> encode_behaviors() >> trained
    publish_embeddings(promote_champion(validate_challenger(register_challenger(trained))))


bahe_daily_update()
