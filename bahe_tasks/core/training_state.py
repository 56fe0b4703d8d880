"""The state of a fine-tune in the middle of it, in one file, so that one that was killed goes on where it stood.

Holds the weights that are trained, the best of them so far, optimiser state and the position of the loop. What is resumed gives the bits of a run that was not disturbed. The file is replaced whole, never
written in place; one that does not fit (another device, other shapes, cut short) is passed over with a warning.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.optimizers import Optimizers
from bahe_tasks.core.window_level import WindowLevel

_LOG = logging.getLogger(__name__)
Tensors = dict[str, torch.Tensor]


@dataclass
class Position:
    """Where the loop stands and what it has seen."""

    epoch: int = 0
    next_row: int = 0  # first of the next batch within the epoch
    losses: list[float] = field(default_factory=list)  # of each step, nats
    gradient_norms: list[float] = field(default_factory=list)  # of each step, before clipping
    stop_losses: list[float] = field(default_factory=list)  # logloss on the early-stop rows after each epoch, nats
    best_steps: int = 0  # steps taken when `stop_losses` was least
    level: tuple[float, float, float] = WindowLevel()


def trained_state(model: BaheCtrModel, optimizers: Optimizers) -> Tensors:
    """Return a copy of the weights that are trained, and of their optimisers' state, by prefixed name."""
    weights = {f"model/{name}": p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}
    return weights | {f"optimizer/{name}": tensor for name, tensor in optimizers.state().items()}


def take_state(model: BaheCtrModel, optimizers: Optimizers, state: Tensors) -> None:
    """Bring model and optimisers to what `trained_state` returned."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in _part(state, "model/").items():
            parameters[name].copy_(tensor)
    optimizers.load(_part(state, "optimizer/"))


def save_state(
    file: Path, position: Position, model: BaheCtrModel, optimizers: Optimizers, best: Tensors, device: torch.device
) -> None:
    """Replace `file` by the present state. `best` is the `trained_state` of the best epoch, empty without early stop."""
    tensors = trained_state(model, optimizers) | {f"best/{name}": tensor for name, tensor in best.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_suffix(".writing")
    save_file(tensors, half, metadata={"position": json.dumps(asdict(position)), "device": device.type})
    with half.open("rb") as written:
        os.fsync(written.fileno())  # a name that survives a power cut must not stand for bytes that did not
    os.replace(half, file)


def resume_state(
    file: Path, model: BaheCtrModel, optimizers: Optimizers, device: torch.device
) -> tuple[Position, Tensors]:
    """Bring model and optimisers to the state in `file`; return its position and the best state.

    Without a file, or with one that does not fit, nothing is touched and the position is the start.
    """
    if not file.is_file():
        return Position(), {}
    try:
        with safe_open(file, framework="pt") as saved:
            document = saved.metadata() or {}
            tensors = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        return _start_anew(file, f"it cannot be read: {error}")
    shapes = {f"model/{name}": p.shape for name, p in model.named_parameters() if p.requires_grad}
    if shapes != {name: tensor.shape for name, tensor in tensors.items() if name.startswith("model/")}:
        return _start_anew(file, "its weights are those of another model")
    if document.get("device") != device.type:
        return _start_anew(file, f"it was saved on {document.get('device')}, this is {device.type}")
    take_state(model, optimizers, tensors)
    return Position(**json.loads(document["position"])), _part(tensors, "best/")


def _start_anew(file: Path, reason: str) -> tuple[Position, Tensors]:
    _LOG.warning("the saved state %s is passed over and training starts anew: %s", file, reason)
    return Position(), {}


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
