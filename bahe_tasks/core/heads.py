"""CTR heads (paper, section 2: "any embedding-based CTR model"): fields → one logit per label.

One interface: `Head(sizes, labels, model)` with `sizes` the width of each field (`head_fields`), and
`forward(fields) -> (B, L)`, or (B, 1) with `click_only`: scoring from cached embeddings pays nothing for what is only
learnt. `mlp` and `din` share a head, since what `din` adds is two more fields (`target_attention`).

Sources: DeepFM, Guo et al., IJCAI 2017. DCN-v2, Wang et al., WWW 2021. DIN, Zhou et al., KDD 2018.

Unusual: fields differ in width, so `deepfm` and `dcn_v2` first map wide ones to a vector of `field_width`. Every head ends
in linear maps per label over what the labels share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import linear

from bahe_tasks.config import ModelConfig
from bahe_tasks.core.head_fields import FieldLinear, FieldMaps, block_key
from bahe_tasks.core.kept_weights import made_once
from bahe_tasks.core.user_fields import spread

_FACTOR_STD = 0.01


class MlpHead(nn.Module):
    """An MLP over all fields."""

    def __init__(self, sizes: dict[str, int], labels: tuple[str, ...], model: ModelConfig) -> None:
        super().__init__()
        self.tower = Tower(sizes, model.hidden_widths, dropout=model.dropout)
        self.outputs = Outputs(model.hidden_widths[-1], labels)

    def forward(self, fields: dict[str, torch.Tensor], *, click_only: bool = False) -> torch.Tensor:
        """Fields (B, width of the field) each → logits (B, L)."""
        return self.outputs(self.tower(fields), click_only=click_only)


class DeepFmHead(nn.Module):
    """A factorisation machine over the fields' vectors beside the MLP: first order + pairwise products + deep.

    The pairwise part is ((Σ v)² − Σ v²) / 2, summed over the vector; a label's weight of each part is 1 at first, which
    is the published model, and learned, so that several labels may weigh them apart. Vectors start small and the first
    order at zero: fields are up to H wide, and their products would drown the base rate.
    """

    def __init__(self, sizes: dict[str, int], labels: tuple[str, ...], model: ModelConfig) -> None:
        super().__init__()
        self.tower = Tower(sizes, model.hidden_widths, dropout=model.dropout)
        self.first_order = FieldLinear(sizes, 1)
        self.vectors = FieldMaps(sizes, model.field_width)
        self.outputs = Outputs(model.hidden_widths[-1] + 1 + model.field_width, labels)
        for part in self.first_order.blocks.values():
            nn.init.zeros_(part.weight)  # type: ignore[arg-type]
        for part in self.vectors.values():
            nn.init.normal_(part.weight, std=_FACTOR_STD)  # type: ignore[arg-type]
        for output in self.outputs.values():
            nn.init.ones_(output.weight[:, model.hidden_widths[-1] :])  # type: ignore[index]

    def forward(self, fields: dict[str, torch.Tensor], *, click_only: bool = False) -> torch.Tensor:
        """Fields (B, width of the field) each → logits (B, L)."""
        vectors = torch.stack(list(self.vectors(fields).values()))  # (fields, B, field_width)
        pairwise = (vectors.sum(0).square() - vectors.square().sum(0)) / 2
        shared = torch.cat([self.tower(fields), self.first_order(fields), pairwise], 1)
        return self.outputs(shared, click_only=click_only)


class DcnV2Head(nn.Module):
    """Cross layers x ← x0 ⊙ (U Vᵀ x + b) + x of low rank beside an MLP, both over x0 ("parallel").

    x0 holds hashed columns, ids of texts and point-in-time numbers as they are, how topics meet and how long histories are times a factor each, and a vector of `field_width`
    of every other field: wide embeddings would drown the rest. U, V, b and the output's weights are kept by field, so that a
    field can be added. The last weights start at zero.
    """

    def __init__(self, sizes: dict[str, int], labels: tuple[str, ...], model: ModelConfig) -> None:
        super().__init__()
        mapped = {
            name: size
            for name, size in sizes.items()
            if not name.startswith(("id:", "cat:", "numbers", "met:", "text_id", "extent:"))
        }
        self.vectors = FieldMaps(mapped, model.field_width)
        self.factors = FieldMaps(
            {name: size for name, size in sizes.items() if name.startswith(("met:", "extent:"))}, 1
        )
        for factor in self.factors.values():
            nn.init.ones_(factor.weight)  # type: ignore[arg-type]
        sizes = sizes | dict.fromkeys(mapped, model.field_width)
        self.names = tuple(sizes)
        self.mlp = Tower(sizes, model.hidden_widths, dropout=model.dropout)
        self.cross_layers = nn.ModuleList(CrossLayer(sizes, model.cross_rank) for _ in range(model.cross_layers))
        self.crossed = nn.ModuleDict({label_key(label): FieldLinear(sizes, 1) for label in labels})
        self.outputs = Outputs(model.hidden_widths[-1], labels)
        for name, weight in self.named_parameters():
            if name.startswith(("outputs.", "crossed.")):
                nn.init.zeros_(weight)

    def forward(self, fields: dict[str, torch.Tensor], *, click_only: bool = False) -> torch.Tensor:
        """Fields (B, width of the field) each → logits (B, L)."""
        fields = fields | self.vectors(fields) | self.factors(fields)
        crossed = first = torch.cat([spread(fields[name]) for name in self.names], 1)  # x0
        for layer in self.cross_layers:
            crossed = layer(first, crossed)
        of_crossed = [output.of_concatenation(crossed) for output in _asked(self.crossed, click_only)]  # type: ignore[operator]
        return self.outputs(self.mlp.of_concatenation(first), click_only=click_only) + torch.cat(of_crossed, 1)


class CrossLayer(nn.Module):
    """One cross layer: (B, all widths) of x0 and of x → of the next x. V is a map from each field, U and b one to each."""

    def __init__(self, sizes: dict[str, int], rank: int) -> None:
        super().__init__()
        self.narrow = FieldMaps(sizes, rank)
        self.widen = nn.ModuleDict({block_key(name): nn.Linear(rank, size) for name, size in sizes.items()})

    def forward(self, first: torch.Tensor, crossed: torch.Tensor) -> torch.Tensor:
        low = linear(crossed, self.narrow.of_concatenation())  # (B, rank)
        weight, bias = made_once(self, self._of_concatenation)
        return torch.addcmul(crossed, first, linear(low, weight, bias))

    def _of_concatenation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weight (all widths, rank) and bias (all widths,) of the maps to all fields."""
        weights, biases = zip(*((part.weight, part.bias) for part in self.widen.values()), strict=True)
        return torch.cat(weights), torch.cat(biases)


class Tower(nn.Module):
    """Fields → the last hidden layer of an MLP, (B, widths[-1])."""

    def __init__(self, sizes: dict[str, int], widths: Sequence[int], *, dropout: float) -> None:
        super().__init__()
        self.entry = FieldLinear(sizes, widths[0])
        layers: list[nn.Module] = [nn.SiLU(), nn.Dropout(dropout)]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.SiLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)

    def forward(self, fields: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.layers(self.entry(fields))

    def of_concatenation(self, fields: torch.Tensor) -> torch.Tensor:
        return self.layers(self.entry.of_concatenation(fields))


class Outputs(nn.ModuleDict):
    """A logit for each label from what the labels share: (B, width) → (B, L), or (B, 1) of the click alone."""

    def __init__(self, width: int, labels: tuple[str, ...]) -> None:
        super().__init__({label_key(label): nn.Linear(width, 1) for label in labels})

    def forward(self, shared: torch.Tensor, *, click_only: bool = False) -> torch.Tensor:
        return torch.cat([output(shared) for output in _asked(self, click_only)], 1)

    @property
    def click_bias(self) -> nn.Parameter:
        """The bias of the click's logit, (1,)."""
        return _asked(self, click_only=True)[0].bias  # type: ignore[return-value]

    def start_at(self, base_rates: Mapping[str, float]) -> None:
        """Let the logits of these labels start at the log-odds of their rates, clipped to [1e-4, 1 - 1e-4]."""
        for label, rate in base_rates.items():
            rate = min(max(rate, 1e-4), 1 - 1e-4)
            nn.init.constant_(self[label_key(label)].bias, math.log(rate / (1 - rate)))  # type: ignore[arg-type]


def _asked(of_labels: nn.ModuleDict, click_only: bool) -> list[nn.Module]:
    """Return the modules of all labels, or that of the click, which stands first."""
    return list(of_labels.values())[: 1 if click_only else None]


def label_key(label: str) -> str:
    """Name of a label as a module name."""
    return block_key(f"label:{label}")


READS_FIELDS = ("head.tower.entry.", "head.first_order.", "head.vectors.", "head.factors.")
"""Names of the maps that read fields; a field added later is one more block in each of them, zero at first."""

HEADS: dict[str, type[MlpHead] | type[DeepFmHead] | type[DcnV2Head]] = {
    "mlp": MlpHead,
    "din": MlpHead,
    "deepfm": DeepFmHead,
    "dcn_v2": DcnV2Head,
}
