"""What every CTR head reads: named fields, each a (B, width) tensor.

"item" and "user:FEATURE" are the embeddings of the paper, "product:FEATURE" their elementwise product (a linear map
over a concatenation learns a similarity slowly), "met:FEATURE" how the topics of both meet (`core.text_topics`), "text_id" and
"text_id:FEATURE" what is learned of each text (`core.text_ids`), "extent:FEATURE" how long a history is (`core.history_extent`); hashed columns give their embedding, numeric ones value and presence.
"numbers" are the point-in-time numbers that heads read, absent ones 0, the middle of their scale: all but how the whole log went.
"shifts", how categorical values and the log went, are for `core.expected_click`.
With `din`, "target:FEATURE" and "target_deep:FEATURE" are what the item attends to.

Unusual: a map from fields is one linear map per field, summed, which equals one linear map over their concatenation. So
a text feature or column that appears later is one more block, zero at first, and the weights of the others do not move.
Hashed embeddings start at zero: an id never seen contributes nothing, as an absent one does.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.functional import linear

from bahe_tasks.core.history_extent import WIDTH
from bahe_tasks.core.kept_weights import made_once
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.core.point_in_time import NUM_SHIFTS, NUM_SHIFTS_OF_LOG
from bahe_tasks.core.text_topics import met
from bahe_tasks.core.user_fields import EmbeddingParts, Field, mapped_each, summed_maps


def field_sizes(spec: ModelSpec, *, width: int) -> dict[str, int]:
    """Return the width of every field of a model; `width` is H."""
    parts = embedding_parts(spec, width=width)
    sizes = {"item": parts.told}
    sizes |= {f"{kind}:{feature}": parts.told for kind in ("user", "product") for feature in spec.features}
    sizes |= {f"met:{feature}": 1 for feature in spec.features if parts.topics}
    sizes |= {name: parts.text_id for name in text_id_fields(spec.features) if parts.text_id}
    sizes |= {f"extent:{feature}": parts.extent for feature in spec.features if parts.extent}
    if spec.model.head == "din":
        sizes |= {f"{kind}:{feature}": width for kind in ("target", "target_deep") for feature in spec.features}
    sizes |= dict.fromkeys(spec.hashed_columns, spec.model.cat_width)
    sizes |= {f"num:{column}": 2 for column in spec.num_columns}
    sizes |= {"numbers": len(spec.numbers) - NUM_SHIFTS_OF_LOG} if spec.numbers else {}
    return sizes


def embedding_parts(spec: ModelSpec, *, width: int) -> EmbeddingParts:
    """Return what the embeddings of a model hold; `width` is H."""
    settings = spec.model
    return EmbeddingParts(width, settings.text_topics, settings.text_id_width, WIDTH if settings.history_extents else 0)


def text_id_fields(features: tuple[str, ...]) -> tuple[str, ...]:
    """Return the fields of what is learned of texts: of the item's title, then of each text feature's."""
    return ("text_id", *(f"text_id:{feature}" for feature in features))


class ColumnFields(nn.Module):
    """Hashed and numeric columns → fields."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.hashed_columns = spec.hashed_columns
        self.num_columns = spec.num_columns
        self.has_numbers = bool(spec.numbers)
        rows, width = spec.model.hash_buckets + 1, spec.model.cat_width
        self.tables = nn.ModuleDict(
            {block_key(name): nn.Embedding(rows, width, padding_idx=0, sparse=True) for name in spec.hashed_columns}
        )
        for table in self.tables.values():
            nn.init.zeros_(table.weight)  # type: ignore[arg-type]

    def forward(self, cat: torch.Tensor, num: torch.Tensor) -> dict[str, torch.Tensor]:
        """Rows of hashed values (B, C) int64 and numbers (B, K), NaN = absent → (B, cat_width) or (B, 2) each."""
        fields = {name: self.tables[block_key(name)](cat[:, c]) for c, name in enumerate(self.hashed_columns)}
        present = (~num[:, : len(self.num_columns)].isnan()).to(num.dtype)
        value = num.nan_to_num(0.0)
        for k, column in enumerate(self.num_columns):
            fields[f"num:{column}"] = torch.stack([value[:, k], present[:, k]], 1)
        if self.has_numbers:
            fields["numbers"] = value[:, len(self.num_columns) : -NUM_SHIFTS_OF_LOG]
            fields["shifts"] = value[:, -NUM_SHIFTS:]
        return fields


def embedding_fields(
    features: tuple[str, ...], user: torch.Tensor, item: torch.Tensor, *, parts: EmbeddingParts
) -> dict[str, torch.Tensor]:
    """User embedding (B, N·(E + X)) and item embedding (B, E) → the fields of both."""
    fields = {"item": item[:, : parts.told]}
    users = dict(zip(features, user.split(parts.of_history, 1), strict=True)) if features else {}
    for feature, of_user in users.items():
        fields[f"user:{feature}"] = of_user[:, : parts.told]
        fields[f"product:{feature}"] = fields[f"user:{feature}"] * fields["item"]
        if parts.topics:
            fields[f"met:{feature}"] = met(fields[f"user:{feature}"], fields["item"], parts.topics)
    if parts.text_id:
        vectors = (item, *users.values())
        fields |= {
            name: of[:, parts.told : parts.of_item] for name, of in zip(text_id_fields(features), vectors, strict=True)
        }
    if parts.extent:
        fields |= {f"extent:{feature}": of_user[:, parts.of_item :] for feature, of_user in users.items()}
    return fields


class FieldLinear(nn.Module):
    """One linear map over all fields: (B, width of the field) each → (B, width_out).

    Its first weights are those of one `nn.Linear` over the concatenation. As maps of their own, narrow fields would start
    with weights so large that a single number drowns the rest.
    """

    def __init__(self, sizes: dict[str, int], width_out: int) -> None:
        super().__init__()
        self.blocks = FieldMaps(sizes, width_out)
        bound = max(sum(sizes.values()), 1) ** -0.5
        for block in self.blocks.values():
            nn.init.uniform_(block.weight, -bound, bound)  # type: ignore[arg-type]
        self.bias = nn.Parameter(torch.zeros(width_out))

    def forward(self, fields: Mapping[str, Field]) -> torch.Tensor:
        if all(isinstance(fields[name], torch.Tensor) for name in self.blocks.names):
            return self.bias + sum(self.blocks(fields).values())
        weights = {name: self.blocks[block_key(name)].weight for name in self.blocks.names}
        return self.bias + summed_maps(self, weights, fields)  # type: ignore[arg-type]

    def of_concatenation(self, fields: torch.Tensor) -> torch.Tensor:
        """(B, all widths), the fields one after the other → (B, width_out)."""
        return linear(fields, self.blocks.of_concatenation(), self.bias)


class FieldMaps(nn.ModuleDict):
    """A linear map without bias for each field."""

    def __init__(self, sizes: dict[str, int], width_out: int) -> None:
        super().__init__({block_key(name): nn.Linear(size, width_out, bias=False) for name, size in sizes.items()})
        self.names = tuple(sizes)

    def forward(self, fields: Mapping[str, Field]) -> dict[str, torch.Tensor]:
        """(B, width of the field) each → (B, width_out) each."""
        return mapped_each(self, {name: self[block_key(name)].weight for name in self.names}, fields)  # type: ignore[misc]

    def of_concatenation(self) -> torch.Tensor:
        """Return the weight of the one map of the concatenation that the maps add up to, (width_out, all widths)."""
        return made_once(self, lambda: torch.cat([self[block_key(name)].weight for name in self.names], 1))  # type: ignore[misc]


def block_key(name: str) -> str:
    """Name of a field as a module name, which must not hold a dot.

    Give it a prefix with a colon, as fields have, where a name of the log stands alone: torch refuses `items` or `type`.
    """
    return name.replace("%", "%25").replace(".", "%2E")
