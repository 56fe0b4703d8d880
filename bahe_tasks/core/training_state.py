"""The state of a fine-tune in the middle of it, in one file, so that one that was killed goes on where it stood.

Holds weights, optimiser state, the random generator's state and the position of the loop. What is resumed gives the bits
of a run that was not disturbed. The file is replaced whole, never written in place.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.optimizers import Optimizers

Weights = dict[str, torch.Tensor]


@dataclass
class Position:
    """Where the loop stands and what it has seen."""

    epoch: int = 0
    next_row: int = 0  # first row of the next batch within the epoch
    losses: list[float] = field(default_factory=list)  # of each step, nats
    gradient_norms: list[float] = field(default_factory=list)  # of each step, before clipping
    stop_losses: list[float] = field(default_factory=list)  # logloss on the early-stop rows after each epoch, nats


def save_state(
    file: Path, position: Position, model: BaheCtrModel, optimizers: Optimizers, best: Weights, device: torch.device
) -> None:
    """Replace `file` by the present state. `best` are the weights of the best epoch so far, empty without early stop."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in optimizers.state().items()}
    tensors["random/cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_suffix(".writing")
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(on_cpu, half, metadata={"position": json.dumps(asdict(position))})
    os.replace(half, file)


def resume_state(
    file: Path, model: BaheCtrModel, optimizers: Optimizers, device: torch.device
) -> tuple[Position, Weights]:
    """Bring model, optimisers and random generator to the state in `file`; return its position and best weights.

    Without a file nothing is touched and the position is the start.
    """
    if not file.is_file():
        return Position(), {}
    with safe_open(file, framework="pt") as saved:
        position = Position(**json.loads(saved.metadata()["position"]))
        tensors = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118 (not a mapping)
    model.load_state_dict(_part(tensors, "model/"))
    optimizers.load(_part(tensors, "optimizer/"))
    torch.set_rng_state(tensors["random/cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random/cuda"], device)
    return position, _part(tensors, "best/")


def _part(tensors: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
