"""What an attempt to log a fine-tune left that failed or was killed: its run, and a model that nobody will ever read."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from bahe_tasks.stores.file_lock import one_at_a_time
from bahe_tasks.stores.model_registry import Registry, is_registered

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

_LOG = logging.getLogger(__name__)


def discard_attempt(registry: Registry, run_id: str) -> None:
    """Remove the model of a run that failed and mark the run FAILED. Raises nothing: what failed first is to be told.

    Files on another machine are left to `mlflow gc`, which finds them by the record that is deleted here.
    """
    try:
        for model in _models_of(registry, run_id):
            _remove(registry, model)
    except Exception as error:
        _LOG.warning("what the failed MLflow run %s logged is not removed: %s", run_id, error)
    try:
        registry.client.set_terminated(run_id, status="FAILED")
    except Exception as error:
        _LOG.warning("the failed MLflow run %s cannot be marked so: %s", run_id, error)


@contextmanager
def only_attempt(registry: Registry, day: date) -> Iterator[None]:
    """Log a day's run inside; what attempts of the day left that were cut short is removed first, and they are marked KILLED.

    Only of a home's own registry, where one process logs at a time: a run of another one may be under way still. A run or
    model that a version points to is left as it is.
    """
    if registry.artifacts is None:
        yield
        return
    with one_at_a_time(registry.folder / ".logging"):
        for run in _cut_short(registry, day):
            _sweep(registry, run)
        yield


def _cut_short(registry: Registry, day: date) -> list[Run]:
    asked = f"attributes.status != 'FINISHED' AND tags.day = '{day.isoformat()}'"
    return list(registry.client.search_runs([registry.experiment_id], asked))


def _sweep(registry: Registry, run: Run) -> None:
    run_id, models = run.info.run_id, _models_of(registry, run.info.run_id)
    if any(is_registered(registry, run_id, model.model_id) for model in models):
        return
    for model in models:
        if model.artifact_location.startswith(f"{registry.artifacts}/"):  # in a copy some may lie in the original
            _remove(registry, model)
    if run.info.status not in ("FAILED", "KILLED"):
        registry.client.set_terminated(run_id, status="KILLED")


def _models_of(registry: Registry, run_id: str) -> list[LoggedModel]:
    return list(registry.client.search_logged_models([registry.experiment_id], f"source_run_id = '{run_id}'"))


def _remove(registry: Registry, model: LoggedModel) -> None:
    """Remove files, then record: a full disk may have no room for a change of the record before."""
    address = urlsplit(model.artifact_location)
    folder = Path(unquote(address.path)).parent  # MODEL_ID/artifacts
    if address.scheme == "file" and folder.name == model.model_id:
        shutil.rmtree(folder, ignore_errors=True)
    registry.client.delete_logged_model(model.model_id)
