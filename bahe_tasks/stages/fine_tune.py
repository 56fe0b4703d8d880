"""Stage 4: score the day with the parent, then train deep layers and CTR head from it (PAPER.md, steps 3 and 4).

Unusual: a day is always scored by a model that has not seen it before it is trained on (progressive validation). The
parent is resolved from the registry, never from the alias `champion`, which may already have seen the day.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bahe_tasks.checkpoint import encoder_version
from bahe_tasks.config import Config
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.device import pick_device
from bahe_tasks.core.model_files import load_model, load_optimizer_state, save_model
from bahe_tasks.core.model_spec import check_encoder
from bahe_tasks.core.optimizers import OptimizerState
from bahe_tasks.core.point_in_time import numbers_lacking
from bahe_tasks.core.rows_at import RowsAt
from bahe_tasks.core.train import TrainingCurve, train
from bahe_tasks.core.train_processes import process_count, train_in_processes
from bahe_tasks.core.training_rows import ImpressionRows
from bahe_tasks.stages.days_in_force import check_inputs_passed, training_fingerprint
from bahe_tasks.stages.embedding_index import NotEncodedError
from bahe_tasks.stages.encode_behaviors import encode_known
from bahe_tasks.stages.impression_rows import impression_rows
from bahe_tasks.stages.lineage import code_revision, table_versions
from bahe_tasks.stages.lost_registry import warn_of_lost_registry
from bahe_tasks.stages.mapped_window import MappedWindow, map_window
from bahe_tasks.stages.model_of_day import model_to_train
from bahe_tasks.stages.progressive import clear_predictions, score_day
from bahe_tasks.stages.topics_start import stored_texts
from bahe_tasks.stages.training_days import training_days
from bahe_tasks.stages.window import Window, read_window
from bahe_tasks.stages.work_folders import forget_day
from bahe_tasks.stores.fine_tune_runs import find_finished_run, log_fine_tune_run
from bahe_tasks.stores.model_promotion import supersede_day
from bahe_tasks.stores.model_registry import Registry, connect, is_withdrawn, local_model_folder, parent_of

_LOG = logging.getLogger(__name__)
_MOST_ROWS_IN_USE = 0.5
_DECIDING_SECTIONS = ("landing", "sequences", "numbers", "encoder", "model", "training", "gate")


def fine_tune(
    day: date, config: Config, *, force: bool = False, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Return {"state", "run_id", "rows", "parent_version", ...}; `state` is "trained", "no_impressions" or "no_training_rows".

    "no_impressions": the day has none; "no_training_rows": all it has is held out or has no usable label yet. `rows` are
    those trained on; how well the parent scored the day is under names that begin with progressive_. A finished MLflow run
    of the same inputs is returned as it is. What an earlier run made of rows that are no longer there is out of force.
    Raises `InputsChangedError`.
    """
    check_inputs_passed(day, config)
    registry, version = connect(config), encoder_version(config.encoder)
    parent = parent_of(registry, day)
    trained_days = training_days(registry, day, parent, config)
    stage_fingerprint = training_fingerprint(
        day,
        config,
        encoder_version=version,
        parent_fingerprint=parent.fingerprint if parent else None,
        training_days=trained_days,
    )
    read = table_versions(config)  # before anything is read: what is read is of these versions or newer
    window = read_window(day, config, trained_days)
    if not (window.landed == np.datetime64(day)).any():
        clear_predictions(day, config, input_fingerprint=stage_fingerprint)
        supersede_day(registry, day)
        return {"state": "no_impressions"}
    training_mask, day_mask = window.training(), window.of_day()
    summary = {"parent_version": parent.version if parent else None, "rows": int(training_mask.sum())}
    parent_folder = local_model_folder(registry, parent.version) if parent else None
    parent_model = load_model(parent_folder, to_train=True) if parent_folder else None
    if parent_model:
        check_encoder(parent_model[1], encoder_version=version)  # before the day is scored by it
    mapped = _mapped(window, config, encoder_version=version)
    read |= table_versions(config, ["behavior_embeddings"])  # some may have been encoded just now

    def rows_of(mask: np.ndarray) -> ImpressionRows:
        return impression_rows(window, mask, mapped, sequences=config.sequences)

    scored = score_day(
        day,
        config,
        rows_of(day_mask),
        mapped.index.vectors,
        parent,
        parent_model,
        input_fingerprint=stage_fingerprint,
        force=force,
    )
    progressive = {f"progressive_{name}": value for name, value in scored.items()}
    if not training_mask.any():
        _clear_states(day, config)
        forget_day(day, config)  # no gate will
        supersede_day(registry, day)
        return {"state": "no_training_rows", **summary, **progressive}
    finished = None if force else find_finished_run(registry, day=day, input_fingerprint=stage_fingerprint)
    if finished and not _is_of_a_withdrawn_parent(registry, finished):
        _clear_states(day, config)  # what a run left that was killed after it had logged
        return {"state": "trained", "run_id": finished, **summary, **progressive}

    if parent is None:
        warn_of_lost_registry(registry, config)
    rows = rows_of(training_mask)
    if config.model.point_in_time_numbers and parent_model and rows.sums is not None:
        _warn_of_lacking_numbers(rows.sums)
    seed = _seed_of_day(config.training.seed, day)
    warm = config.training.start_from == "parent"
    going_on_from = parent_model if warm else None
    model, spec = model_to_train(
        rows,
        mapped.index.vectors,
        config,
        going_on_from,
        texts_at=stored_texts(mapped.index, config),
        encoder_version=version,
        seed=seed,
    )
    state_file = _states_dir(config) / f"{day}-{stage_fingerprint[:16]}.safetensors"
    if force:
        state_file.unlink(missing_ok=True)
    device = pick_device(config.encoder.device)
    count = process_count(config.training, device)
    curve = _train(
        model,
        rows,
        mapped.index.vectors,
        config,
        seed=seed,
        optimizer_state=load_optimizer_state(parent_folder) if warm and parent_folder else None,
        state_file=state_file,
        device=device,
        count=count,
        progress=progress,
    )
    _warn_of_full_tables(model)
    with tempfile.TemporaryDirectory(prefix="bahe-model-") as folder:
        spec = spec.trained(steps=curve.steps_kept)
        save_model(model, spec, Path(folder), optimizer_state=curve.optimizer_state)
        run_id = log_fine_tune_run(
            registry,
            day=day,
            input_fingerprint=stage_fingerprint,
            model_dir=Path(folder),
            cat_columns=spec.cat_columns,
            num_columns=spec.num_columns,
            history_features=None if spec.model.user_is_cacheable else spec.features,
            params=_params(
                config, parameters=sum(p.numel() for p in model.parameters()), seed=seed, rows=len(rows.labels)
            ),
            metrics={
                **{name: value for name, value in progressive.items() if isinstance(value, float)},
                "training_loss": float(np.mean(curve.losses)),
                "training_rows": float(curve.rows),
            },
            curves={
                "loss": list(curve.losses),
                "gradient_norm": list(curve.gradient_norms),
                "stop_logloss": list(curve.stop_losses),
            },
            tags={
                "encoder_version": version,
                "parent_version": str(parent.version) if parent else "",
                "parent_fingerprint": parent.fingerprint if parent else "",
                "seed": str(seed),
                "device": device.type,
                "processes": str(count),  # each draws its own dropout
                "training_days": " ".join(map(str, trained_days)),
                "configuration": json.dumps({name: asdict(getattr(config, name)) for name in _DECIDING_SECTIONS}),
                "code_revision": code_revision(),
                **{f"table_version.{name}": str(v) for name, v in read.items()},
            },
        )
    _clear_states(day, config)
    return {"state": "trained", "run_id": run_id, **summary, **progressive}


def _is_of_a_withdrawn_parent(registry: Registry, run_id: str) -> bool:
    """Tell whether a run goes on from a version that was withdrawn, and whose day was trained anew from the same rows since."""
    parent = registry.client.get_run(run_id).data.tags.get("parent_version")
    return is_withdrawn(registry, int(parent)) if parent else False


def _mapped(window: Window, config: Config, *, encoder_version: str) -> MappedWindow:
    """Return what the rows used read; what was never encoded under this encoder is encoded first."""
    used = window.used(config)
    try:
        return map_window(window, used, config, encoder_version=encoder_version)
    except NotEncodedError as error:
        encode_known(window.day, config, error.keys)
        return map_window(window, used, config, encoder_version=encoder_version)


def _warn_of_lacking_numbers(sums: np.ndarray | RowsAt) -> None:
    """Name the numbers that no training row of a day after the first has; the model reads them as nothing known."""
    lacking = numbers_lacking(sums)
    if lacking:
        _LOG.warning("point-in-time numbers that cannot exist in this log: no training row has %s", "; ".join(lacking))


def _warn_of_full_tables(model: BaheCtrModel) -> None:
    """Name the hashed columns of which too many values share a row: nothing that is learned of one is its own."""
    full = [f"{name} {share:.0%}" for name, share in model.rows_in_use().items() if share > _MOST_ROWS_IN_USE]
    if full:
        _LOG.warning(
            "of these values about so many share a row of their table with another and are not told apart: %s; "
            "a new lineage with a larger model.hash_buckets tells them apart (docs/model.md)",
            ", ".join(full),
        )


def _states_dir(config: Config) -> Path:
    """Return where a fine-tune saves its state while it runs."""
    return config.home / "work" / "fine_tune"


def _clear_states(day: date, config: Config) -> None:
    for leftover in _states_dir(config).glob(f"{day}-*"):
        leftover.unlink()


def _train(
    model: BaheCtrModel,
    rows: ImpressionRows,
    vectors: np.ndarray,
    config: Config,
    *,
    seed: int,
    optimizer_state: OptimizerState | None,
    state_file: Path,
    device: torch.device,
    count: int,
    progress: Callable[[int, int], None] | None,
) -> TrainingCurve:
    """Train in this process, or in so many; those tell no progress."""
    training = config.training
    settings: dict[str, Any] = {"training": training, "seed": seed, "device": device}
    state: dict[str, Any] = {"optimizer_state": optimizer_state, "state_file": state_file}
    if count == 1:
        return train(model, rows, vectors, **settings, **state, progress=progress)
    return train_in_processes(model, rows, vectors, num_processes=count, **settings, **state)


def _seed_of_day(seed: int, day: date) -> int:
    """Return the day's own seed, so that two days do not draw the same numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed}\x00{day}".encode()).digest()[:4], "big")


def _params(config: Config, *, parameters: int, seed: int, rows: int) -> dict[str, Any]:
    sections = {"model": config.model, "training": config.training, "encoder": config.encoder}
    settings = {f"{name}.{key}": value for name, section in sections.items() for key, value in vars(section).items()}
    return {**settings, "parameters": parameters, "seed_of_day": seed, "training_rows": rows}
