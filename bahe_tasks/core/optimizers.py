"""Which parameters are trained, by what, and the optimisers' state by parameter name.

Unusual: hashed embeddings are trained by a sparse Adam that touches only the rows a batch holds. A dense AdamW would
read and shrink every row of every table at each step, also those of ids that were not there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bahe_tasks.config import TrainingConfig
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.lora import is_adapter

OptimizerState = dict[str, torch.Tensor]
"""PARAMETER/STATISTIC → tensor: Adam's moments and step counts."""


class Optimizers:
    """AdamW for dense weights in two groups, deep layers and the rest; a sparse Adam, without decay, for hashed rows."""

    def __init__(self, model: BaheCtrModel, training: TrainingConfig) -> None:
        tuning = model.spec.model.deep_tuning
        for name, parameter in model.deep.named_parameters():
            parameter.requires_grad_(tuning == "full" or (tuning == "lora" and is_adapter(name)))
        deep = [p for p in model.deep.parameters() if p.requires_grad]
        tables = list(model.columns.tables.parameters())
        apart = {id(p) for p in (*tables, *model.deep.parameters())}
        rest = [p for p in model.parameters() if id(p) not in apart]
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [
                    {"params": deep, "lr": training.deep_learning_rate},
                    {"params": rest, "lr": training.head_learning_rate},
                ],
                weight_decay=training.weight_decay,
            )
        ]
        if tables:
            self._optimizers.append(torch.optim.SparseAdam(tables, lr=training.hashed_learning_rate))
        self._dense = [*deep, *rest]
        self._names: dict[torch.Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        self._groups = [(group, group["lr"]) for optimizer in self._optimizers for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad()

    def clip(self, max_norm: float) -> torch.Tensor:
        """Scale the dense gradients to at most this norm; return what it was."""
        return nn.utils.clip_grad_norm_(self._dense, max_norm)

    def step(self, learning_rate_share: float) -> None:
        """Take one step with so much of the configured step sizes."""
        for group, full in self._groups:
            group["lr"] = full * learning_rate_share
        for optimizer in self._optimizers:
            optimizer.step()

    def state(self) -> OptimizerState:
        """Return a copy of the state of every parameter that has taken a step."""
        return {
            f"{self._names[parameter]}/{statistic}": torch.as_tensor(value).detach().clone().cpu()
            for optimizer in self._optimizers
            for parameter, statistics in optimizer.state.items()
            for statistic, value in statistics.items()
        }

    def load(self, state: OptimizerState) -> None:
        """Go on from what `state` returned. A parameter it does not name starts anew; names not in force are left out."""
        for optimizer in self._optimizers:
            optimizer.state.clear()
        known = {self._names[p]: (o, p) for o in self._optimizers for g in o.param_groups for p in g["params"]}
        for key, value in state.items():
            name, statistic = key.rsplit("/", 1)
            if name in known:
                optimizer, parameter = known[name]
                optimizer.state[parameter][statistic] = _as_kept(optimizer, parameter, statistic, value)


def _as_kept(optimizer: torch.optim.Optimizer, parameter: torch.Tensor, statistic: str, value: torch.Tensor) -> Any:
    """Return a statistic as the optimiser keeps it: step counts are numbers or live on the CPU, moments do not."""
    if statistic == "step":
        return int(value) if isinstance(optimizer, torch.optim.SparseAdam) else value.clone()
    return value.to(parameter.device, copy=True)
