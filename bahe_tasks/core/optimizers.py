"""Which parameters are trained, by what, the average of the head's weights, and the state of it all by parameter name.

Unusual: what scores is an average of the head's weights over about the last `average_steps` steps; what is trained are
the weights themselves, which are noisy after a few thousand rows. While a model is in training it holds the latter;
`average` ends that. The deep layers move slowly and have no average.

Hashed embeddings are trained by an optimiser that touches only the rows a batch holds. A dense AdamW would read and
shrink every row of every table at each step, also those of ids that were not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bahe_tasks.config import TrainingConfig
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.lora import is_adapter
from bahe_tasks.core.muon import Muon
from bahe_tasks.core.row_wise_adagrad import RowWiseAdagrad

OptimizerState = dict[str, torch.Tensor]
"""PARAMETER/STATISTIC → tensor: AdamW's moments and step counts, Muon's momentum, a table's sums, the weights `in_training` of a model
that holds their average, or the `average` of one that is in training, and the step of the lineage a weight was `born` at, if not the first."""

_FIRST_STEPS = 10
"""In a young lineage the average reaches back over about a tenth of its steps, that of a weight which appeared later over a
tenth of its own."""


class Optimizers:
    """Muon for weight matrices outside the LLM; AdamW for the LLM's and for vectors; row-wise Adagrad for hashed embeddings."""

    def __init__(self, model: BaheCtrModel, training: TrainingConfig) -> None:
        tuning = model.spec.model.deep_tuning
        for name, parameter in model.deep.named_parameters():
            parameter.requires_grad_(tuning == "full" or (tuning == "lora" and is_adapter(name)))
        deep = [p for p in model.deep.parameters() if p.requires_grad]
        tables = [p for m in model.modules() if isinstance(m, nn.Embedding) and m.sparse for p in m.parameters()]
        apart = {id(p) for p in (*tables, *model.deep.parameters())}
        rest = [p for p in model.parameters() if id(p) not in apart]
        of_maps = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear) and min(m.weight.shape) > 1}
        matrices = [p for p in rest if id(p) in of_maps]
        vectors = [p for p in rest if id(p) not in of_maps]
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [
                    {"params": deep, "lr": training.deep_learning_rate},
                    {"params": vectors, "lr": training.vector_learning_rate},
                ],
                weight_decay=training.weight_decay,
                fused=training.fused_optimizer,
            ),
        ]
        if matrices:
            self._optimizers.append(Muon(matrices, lr=training.head_learning_rate, weight_decay=training.weight_decay))
        self._groups = [(group, group["lr"]) for optimizer in self._optimizers for group in optimizer.param_groups]
        if tables:
            self._optimizers.append(RowWiseAdagrad(tables, lr=training.hashed_learning_rate))
        self.dense, self.tables = [*deep, *rest], tables
        self._deep = {id(p) for p in deep}
        self._names: dict[torch.Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        self._fused = training.fused_optimizer  # then step counts live where the parameters do
        self._average_steps = training.average_steps
        self._averages = {p: p.detach().clone() for p in rest} if training.average_steps else {}
        self._born: dict[torch.Tensor, int | None] = dict.fromkeys(self._averages, 0)  # None: at the next step

    def zero_grad(self) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad()

    def clip(self, max_norm: float) -> torch.Tensor:
        """Scale the dense gradients to at most this norm; return what it was."""
        return nn.utils.clip_grad_norm_(self.dense, max_norm)

    def step(self, learning_rate_share: float, *, number: int) -> None:
        """Take step `number`, counted from the lineage's first, 0, with so much of the configured step sizes.

        Adagrad's steps are whole: they get shorter by themselves.
        """
        for group, full in self._groups:
            group["lr"] = full * learning_rate_share
        for optimizer in self._optimizers:
            optimizer.step()
        if self._averages:
            self._born = {p: number if born is None else born for p, born in self._born.items()}
            shares = [self._share_of_average(number - (born or 0)) for born in self._born.values()]
            with torch.no_grad():
                torch._foreach_lerp_(list(self._averages.values()), [p.detach() for p in self._averages], shares)

    def _share_of_average(self, age: int) -> float:
        return max(1 / self._average_steps, _FIRST_STEPS / (age + 1 + _FIRST_STEPS))

    def shift(self, parameter: nn.Parameter, by: float) -> None:
        """Add a number to a parameter and to its average."""
        with torch.no_grad():
            parameter.add_(by)
            if parameter in self._averages:
                self._averages[parameter].add_(by)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the model hold the average for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> OptimizerState:
        """Return a copy of the state of every parameter that has taken a step, and of the averages."""
        moments = {
            f"{self._names[parameter]}/{statistic}": torch.as_tensor(value).detach().clone().cpu()
            for optimizer in self._optimizers
            for parameter, statistics in optimizer.state.items()
            for statistic, value in statistics.items()
        }
        averages = {f"{self._names[p]}/average": a.clone().cpu() for p, a in self._averages.items()}
        return (
            moments
            | averages
            | {f"{self._names[p]}/born": torch.tensor(born) for p, born in self._born.items() if born}
        )

    def end(self, *, with_deep_layers: bool) -> OptimizerState:
        """Leave the model with the average, and return what the next day's training goes on from."""
        self._swap()
        left_out = set() if with_deep_layers else {self._names[p] for p in self._names if id(p) in self._deep}
        state = {name: tensor for name, tensor in self.state().items() if name.rsplit("/", 1)[0] not in left_out}
        return {
            f"{name.removesuffix('/average')}/in_training" if name.endswith("/average") else name: tensor
            for name, tensor in state.items()
        }

    def load(self, state: OptimizerState) -> None:
        """Go on from what `state` or `end` returned. What it does not name starts anew; names not in force are left out."""
        for optimizer in self._optimizers:
            optimizer.state.clear()
        self._born = {p: self._born_in(state, self._names[p]) for p in self._averages}
        known = {self._names[p]: (o, p) for o in self._optimizers for g in o.param_groups for p in g["params"]}
        for key, value in state.items():
            name, statistic = key.rsplit("/", 1)
            if name not in known:
                continue
            optimizer, parameter = known[name]
            if statistic == "average" and parameter in self._averages:
                self._averages[parameter].copy_(value)
            elif statistic == "in_training":
                if parameter in self._averages:
                    self._averages[parameter].copy_(parameter.detach())
                parameter.data.copy_(value)
            elif statistic not in ("average", "born"):
                on_cpu = statistic == "step" and not self._fused
                optimizer.state[parameter][statistic] = value.to("cpu" if on_cpu else parameter.device, copy=True)

    @staticmethod
    def _born_in(state: OptimizerState, name: str) -> int | None:
        """Return the step a weight was born at; None for one that a state with others does not know."""
        if state and not {f"{name}/average", f"{name}/in_training"} & state.keys():
            return None
        return int(state.get(f"{name}/born", 0))

    def _swap(self) -> None:
        with torch.no_grad():
            for parameter, average in self._averages.items():
                trained = parameter.detach().clone()
                parameter.copy_(average)
                average.copy_(trained)
