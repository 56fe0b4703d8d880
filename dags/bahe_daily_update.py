"""The daily update as an Airflow DAG: one run per calendar day D, the data interval [D, D+1) in UTC.

Owns only what Airflow has to know: order, schedule, pools, retries, assets. Each task calls the stage of the same name.
Unusual: stages are imported inside the task bodies, so that parsing this file loads nothing heavy.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, CronDataIntervalTimetable, Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from bahe_tasks.config import AirflowConfig, Config, load_config
from bahe_tasks.data_interval import day_of_run, parse_day, start_of

HOME = Path(os.environ.get("BAHE_HOME", "bahe_home"))
SETTINGS = load_config(HOME).airflow if (HOME / "bahe.yaml").is_file() else AirflowConfig()
LANDED = ("behavior_events", "items", "impressions", "quarantine")
DERIVED = ("atomic_behaviors", "new_behaviors", "user_sequences")
Json = Any  # a small JSON document; annotated as a dict, Airflow would cut it into one XCom a key


def _tables(*names: str) -> list[Asset]:
    return [Asset(name=name, uri=f"bahe://tables/{name}") for name in names]


def _outcome(stage: Callable[[date, Config, Json], Json]) -> Json:
    """Call the stage with day, settings and parameters of this run; log its result, or push as XCom `problem` why not.

    A refused gate, an input that is not there and a wrong setting stay as they are, so they are not retried.
    """
    from bahe_tasks.stages.errors import GateRefused, NothingLandedError

    context = get_current_context()
    try:
        day = day_of_run(context.get("data_interval_start"), context["params"]["day"])
        config = load_config(HOME, landing_dir=os.environ.get("BAHE_LANDING"))
        result = stage(day, config, dict(context["params"]))
    except Exception as error:
        refused = isinstance(error, GateRefused)
        message = str(error) if refused else f"{type(error).__name__}: {error}"
        context["ti"].xcom_push("problem", {"state": "refused" if refused else "failed", "message": message[:2000]})
        if isinstance(error, GateRefused | NothingLandedError | FileNotFoundError | ValueError):
            raise AirflowFailException(message) from error
        raise
    logging.getLogger(__name__).info(" · ".join(f"{key} {value}" for key, value in result.items()))
    return result


@task(pool="bahe_spark", outlets=_tables(*LANDED, *DERIVED))
def dedup_behaviors() -> Json:
    """Reads the day's landing; writes the tables of the day, new atomic behaviors and quarantine (Spark)."""
    from spark_jobs.session import stop_spark_session

    from bahe_tasks.stages.dedup_behaviors import dedup_behaviors as stage

    try:
        return _outcome(lambda day, config, params: stage(day, config, force=params["force"]))
    finally:
        stop_spark_session()


@task(outlets=_tables("gate_results"))
def validate_inputs() -> Json:
    """Reads the day's tables; writes `gate_results`. Red when refused, unless `accept_inputs` gives a reason."""
    from bahe_tasks.stages.validate_inputs import validate_inputs as stage

    return _outcome(lambda day, config, p: stage(day, config, force=p["force"], accept_reason=p["accept_inputs"]))


@task(outlets=_tables("behavior_embeddings"))
def encode_behaviors() -> Json:
    """Reads the new atomic behaviors; writes their `behavior_embeddings` (shallow layers, torch)."""
    from bahe_tasks.stages.encode_behaviors import encode_behaviors as stage

    return _outcome(lambda day, config, params: stage(day, config, force=params["force"]))


@task(pool="bahe_training", outlets=_tables("progressive_predictions"))
def fine_tune() -> Json:
    """Scores D with the parent (`progressive_predictions`), trains from it; an MLflow run. Skipped without rows."""
    from bahe_tasks.stages.fine_tune import fine_tune as stage

    trained = _outcome(lambda day, config, params: stage(day, config, force=params["force"]))
    if trained["state"] != "trained":
        get_current_context()["ti"].xcom_push("return_value", trained)
        raise AirflowSkipException(f"nothing to train on ({trained['state']}); the champion stays")
    return trained


@task(pool="bahe_training")
def register_challenger(trained: Json) -> Json:
    """Reads the MLflow run; writes a version of the registered model with its lineage, alias `challenger`."""
    from bahe_tasks.stages.register_challenger import register_challenger as stage

    return _outcome(lambda day, config, _: stage(day, config, run_id=trained["run_id"]))


@task(pool="bahe_training", outlets=_tables("gate_results"))
def validate_challenger(made: Json) -> Json:
    """Reads the day's tables, embeddings, held-out rows; writes `gate_results`. Red when the challenger is refused."""
    from bahe_tasks.stages.validate_challenger import validate_challenger as stage

    version = made["version"]
    return _outcome(lambda day, config, p: stage(day, config, version=version, force=p["force"])) | {"version": version}


@task(pool="bahe_training")
def promote_champion(passed: Json) -> Json:
    """Moves the alias `champion` to the version that passed, unless the champion has seen a later day."""
    from bahe_tasks.stages.promote_champion import promote_champion as stage

    version = passed["version"]
    return _outcome(lambda day, config, _: stage(day, config, version=version)) | {"version": version}


@task(outlets=_tables("user_embeddings", "item_embeddings"))
def publish_embeddings(promoted: Json) -> Json:
    """Writes `user_embeddings` and `item_embeddings` of this run's version when it is the champion."""
    from bahe_tasks.stages.publish_embeddings import publish_embeddings as stage

    return _outcome(lambda day, config, _: stage(day, config, version=promoted["version"]))


@dag(
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=start_of(parse_day(SETTINGS.schedule_start)),
    catchup=False,
    max_active_runs=1,
    tags=["bahe", "ctr", "daily"],
    params={
        "day": Param(None, type=["null", "string"], format="date", description="day of a run without data interval"),
        "force": Param(False, type="boolean", description="run stages even where their output is up to date"),
        "accept_inputs": Param(None, type=["null", "string"], description="reason to accept refused inputs"),
    },
    default_args={"owner": "bahe", "retries": SETTINGS.retries, "retry_delay": timedelta(seconds=30)}
    | {"retry_exponential_backoff": True, "max_retry_delay": timedelta(minutes=10)},
)
def bahe_daily_update() -> None:
    """Keeps the click-through-rate model fresh with day D, the start of the data interval or the parameter `day`.

    A refused gate makes its task red; the champion stays. Every task may run again: what is up to date writes nothing.
    A day trained anew makes the later days stale: backfill them too.
    """
    trained = fine_tune()
    dedup_behaviors() >> validate_inputs() >> encode_behaviors() >> trained
    publish_embeddings(promote_champion(validate_challenger(register_challenger(trained))))


bahe_daily_update()
