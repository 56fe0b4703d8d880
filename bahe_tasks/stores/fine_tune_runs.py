"""One MLflow run per fine-tune: parameters, metrics, curves, tags and the model as a pyfunc.

A run is FINISHED only when everything is written. One that was killed stays RUNNING until its day is logged again and is
never picked up; of it and of one that failed no model stays.

Unusual: the pyfunc is "model from code" over safetensors, so nothing is pickled and nothing is run while it is logged.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

from bahe_tasks.stores.cut_short_runs import discard_attempt, only_attempt
from bahe_tasks.stores.model_registry import Registry

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

LOGGED_MODEL_TAG = "logged_model_id"
"""Run tag that names the run's model; set last before the run is finished."""

MODEL_FILES = ("model.safetensors", "model_spec.json")
OPTIONAL_FILES = ("optimizer.safetensors",)

PYFUNC_SCRIPT = Path(__file__).parent.parent / "serving" / "pyfunc_model.py"
"""MLflow stores this file with the model; it is named, not imported, because it needs torch."""

_BATCH_METRICS, _BATCH_PARAMS = 1000, 100  # MLflow's limits of one log_batch
_PIP_REQUIREMENTS = ("mlflow", "torch", "transformers", "peft", "safetensors", "numpy", "pandas")


class ModelFilesNotFoundError(FileNotFoundError):
    """A folder that should hold a trained model and does not."""


def find_finished_run(registry: Registry, *, day: date, input_fingerprint: str) -> str | None:
    """Return the id of the newest finished run of `day` with this fingerprint, `None` when there is none."""
    found = registry.client.search_runs(
        [registry.experiment_id],
        f"attributes.status = 'FINISHED' AND tags.day = '{day.isoformat()}' "
        f"AND tags.input_fingerprint = '{input_fingerprint}'",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    return str(found[0].info.run_id) if found else None


def log_fine_tune_run(
    registry: Registry,
    *,
    day: date,
    input_fingerprint: str,
    params: Mapping[str, object],
    metrics: Mapping[str, float],
    curves: Mapping[str, Sequence[float]],
    tags: Mapping[str, str],
    model_dir: Path,
    cat_columns: Sequence[str],
    num_columns: Sequence[str],
    history_features: Sequence[str] | None = None,
) -> str:
    """Log one fine-tune and return the run's id.

    `curves` are values by step, from step 0. `model_dir` holds model.safetensors, model_spec.json and, where it is kept,
    optimizer.safetensors. `cat_columns` and
    `num_columns` are the model's columns without cat_ and num_; they enter the signature, and so do `history_features`,
    the text features of a model that reads histories where others read a cached user embedding. A run that fails on the way
    is marked FAILED, its model removed and the error raised; what earlier ones of the day left is removed first. Raises
    `ModelFilesNotFoundError` before anything is logged.
    """
    missing = [name for name in MODEL_FILES if not (model_dir / name).is_file()]
    if missing:
        raise ModelFilesNotFoundError(f"{model_dir} holds no {' and no '.join(missing)}: save the model there first")
    registry.follow_home()
    client = registry.client
    named = {**tags, "day": day.isoformat(), "input_fingerprint": input_fingerprint}
    with only_attempt(registry, day):
        run = client.create_run(registry.experiment_id, run_name=f"fine_tune {day}", tags=named)
        run_id: str = run.info.run_id
        try:
            _log_numbers(registry, run_id, params=params, metrics=metrics, curves=curves, time_ms=run.info.start_time)
            model_id = _log_model(
                registry, run_id, model_dir, signature=_signature(cat_columns, num_columns, history_features)
            )
            client.set_tag(run_id, LOGGED_MODEL_TAG, model_id)
        except BaseException:
            discard_attempt(registry, run_id)
            raise
        client.set_terminated(run_id)
    return run_id


def log_metrics(registry: Registry, run_id: str, metrics: Mapping[str, float]) -> None:
    """Add metrics to a run, finished or not."""
    from mlflow.entities import Metric

    time_ms = registry.client.get_run(run_id).info.start_time
    registry.client.log_batch(run_id, metrics=[Metric(name, value, time_ms, 0) for name, value in metrics.items()])


def _log_numbers(
    registry: Registry,
    run_id: str,
    *,
    params: Mapping[str, object],
    metrics: Mapping[str, float],
    curves: Mapping[str, Sequence[float]],
    time_ms: int,
) -> None:
    from mlflow.entities import Metric, Param

    points = [Metric(name, float(value), time_ms, 0) for name, value in metrics.items()]
    points += [
        Metric(name, float(value), time_ms, step) for name, curve in curves.items() for step, value in enumerate(curve)
    ]
    settings = [Param(name, str(value)) for name, value in params.items()]
    for start in range(0, len(settings), _BATCH_PARAMS):
        registry.client.log_batch(run_id, params=settings[start : start + _BATCH_PARAMS])
    for start in range(0, len(points), _BATCH_METRICS):
        registry.client.log_batch(run_id, metrics=points[start : start + _BATCH_METRICS])


def _log_model(registry: Registry, run_id: str, model_dir: Path, *, signature: ModelSignature) -> str:
    """Log the pyfunc as the run's model and return its id."""
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput

    client = registry.client
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns that no input example is run; that is on purpose
        folder = Path(scratch) / "model"
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(PYFUNC_SCRIPT),
            artifacts={
                Path(name).stem: str(model_dir / name)
                for name in (*MODEL_FILES, *OPTIONAL_FILES)
                if (model_dir / name).is_file()
            },
            signature=signature,
            pip_requirements=_pip_requirements(),
        )
        model = client.create_logged_model(
            registry.experiment_id, name=registry.model_name, source_run_id=run_id, model_type="pyfunc"
        )
        client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, models=[LoggedModelOutput(model.model_id, step=0)])
    return str(model.model_id)


@cache
def _pip_requirements() -> list[str]:
    return [f"{name}=={installed_version(name)}" for name in _PIP_REQUIREMENTS]


def _signature(
    cat_columns: Sequence[str], num_columns: Sequence[str], history_features: Sequence[str] | None
) -> ModelSignature:
    """Return the pyfunc's signature: embeddings are required, ids, columns, histories and sums may be left out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec
    from mlflow.types.schema import Array

    numbers = Array(DataType.double)
    inputs: list[ColSpec | TensorSpec] = []
    if history_features is None:
        inputs += [ColSpec(numbers, name) for name in ("user_embedding", "item_embedding")]
    else:
        inputs.append(ColSpec(numbers, "title_embedding", required=False))
        for feature in sorted(history_features):
            inputs.append(ColSpec(Array(numbers), f"behaviors_{feature}", required=False))
            inputs.append(ColSpec(numbers, f"ages_s_{feature}", required=False))
    inputs += [ColSpec(DataType.string, name, required=False) for name in ("user_id", "item_id")]
    inputs += [ColSpec(DataType.string, f"cat_{name}", required=False) for name in sorted(cat_columns)]
    inputs += [ColSpec(DataType.double, f"num_{name}", required=False) for name in sorted(num_columns)]
    inputs.append(ColSpec(numbers, "sums", required=False))
    return ModelSignature(inputs=Schema(inputs), outputs=Schema([ColSpec(DataType.double, "click_probability")]))
