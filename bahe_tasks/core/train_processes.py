"""The fine-tune over several processes: one a GPU of this machine, some on its CPU, or those that torchrun started.

Each has the same arguments and a rank. Those that the task starts itself (no launcher to configure) meet through a file.
The first one's model and curve come back through a file too.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from bahe_tasks.config import TrainingConfig
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.launched import launched_processes, run_shared
from bahe_tasks.core.ranks import Ranks
from bahe_tasks.core.train import TrainingCurve, train
from bahe_tasks.core.training_rows import ImpressionRows
from bahe_tasks.wrong_use import WrongUseError


class TooManyProcessesError(WrongUseError):
    """More processes than there are GPUs."""


def process_count(training: TrainingConfig, device: torch.device) -> int:
    """Return how many processes train: all that torchrun started, else `training.num_processes`, where 0 is one a GPU.

    Raises `TooManyProcessesError`.
    """
    if launched := launched_processes():
        return launched
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    if gpus and training.num_processes > gpus:
        raise TooManyProcessesError(
            f"training.num_processes is {training.num_processes}, but torch sees {gpus} GPUs: set it to 0 for one a GPU"
        )
    return training.num_processes or max(1, gpus)


def train_in_processes(
    model: BaheCtrModel,
    rows: ImpressionRows,
    embeddings: np.ndarray,
    *,
    num_processes: int,
    training: TrainingConfig,
    seed: int,
    device: torch.device,
    **arguments: Any,
) -> TrainingCurve:
    """Do what `train` does, in processes; `arguments` are its others but `progress`, which is not told."""
    with tempfile.TemporaryDirectory(prefix="bahe-train-") as folder:
        model.cpu()
        if device.type == "cuda":
            torch.cuda.empty_cache()  # of what this process computed before: one of the others trains on the same GPU
        shared = {"training": training, "seed": seed, **arguments}
        work = (num_processes, Path(folder), device.type, model, rows, embeddings, shared)
        run_shared(_work, work, count=num_processes)
        model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
        curve: TrainingCurve = torch.load(Path(folder) / "curve.pt", weights_only=False)  # our own, of a moment ago
        state_file = Path(folder) / "optimizer.safetensors"
        return replace(curve, optimizer_state=load_file(state_file)) if state_file.is_file() else curve


def _work(
    rank: int,
    size: int,
    folder: Path,
    device_type: str,
    model: BaheCtrModel,
    rows: ImpressionRows,
    embeddings: np.ndarray,
    shared: dict[str, Any],
) -> None:
    device = torch.device(device_type)
    if device.type == "cuda":
        device = torch.device("cuda", rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    with _met(rank, size, folder, device):
        model = copy.deepcopy(model)  # torch hands tensors to processes as shared memory: each needs its own
        dist.barrier()
        curve = train(model, rows, embeddings, device=device, ranks=Ranks(rank, size), **shared)
        if rank == 0:
            weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
            save_file(weights, folder / "model.safetensors")
            if curve.optimizer_state:
                save_file(curve.optimizer_state, folder / "optimizer.safetensors")
            torch.save(replace(curve, optimizer_state={}), folder / "curve.pt")
        dist.barrier()


@contextmanager
def _met(rank: int, size: int, folder: Path, device: torch.device) -> Iterator[None]:
    """Be in one process group with the other ranks; those that torchrun started are already."""
    if launched_processes():
        yield
        return
    torch.set_num_threads(max(1, torch.get_num_threads() // size))  # unless training.num_threads says otherwise
    meeting = f"file://{folder / 'meeting'}"
    if device.type == "cuda":
        dist.init_process_group("nccl", init_method=meeting, rank=rank, world_size=size, device_id=device)
    else:
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()
