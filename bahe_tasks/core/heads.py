"""The CTR head: an MLP over user embedding, item embedding, their products, hashed and numeric columns (paper, section 2).

Unusual: the first layer is a sum of named blocks, one linear map per input, which equals one linear map over their
concatenation. So a text feature or column that appears later is one more block, zero at first, and the weights of the
others do not move. Hashed embeddings start at zero: an id never seen contributes nothing, as an absent one does.
"""

from __future__ import annotations

import torch
from torch import nn

from bahe_tasks.core.model_spec import ModelSpec


class MlpHead(nn.Module):
    """User and item embeddings and columns → click logit."""

    def __init__(self, spec: ModelSpec, *, width: int) -> None:
        """`width` is H."""
        super().__init__()
        first, *further = (*spec.model.hidden_widths, 1)
        self.features = spec.features
        self.hashed_columns = spec.hashed_columns
        self.num_columns = spec.num_columns
        sizes = {"item": width}
        sizes |= {f"user:{feature}": width for feature in spec.features}
        sizes |= {f"product:{feature}": width for feature in spec.features}
        sizes |= dict.fromkeys(spec.hashed_columns, spec.model.cat_width)
        sizes |= {f"num:{column}": 2 for column in spec.num_columns}
        self.blocks = nn.ModuleDict(
            {block_key(name): nn.Linear(size, first, bias=False) for name, size in sizes.items()}
        )
        self.tables = nn.ModuleDict(
            {
                block_key(name): nn.Embedding(
                    spec.model.hash_buckets + 1, spec.model.cat_width, padding_idx=0, sparse=True
                )
                for name in spec.hashed_columns
            }
        )
        for table in self.tables.values():
            nn.init.zeros_(table.weight)  # type: ignore[arg-type]
        self.bias = nn.Parameter(torch.zeros(first))
        layers: list[nn.Module] = []
        for before, after in zip((first, *further), further, strict=False):
            layers += [nn.ReLU(), nn.Dropout(spec.model.dropout), nn.Linear(before, after)]
        self.layers = nn.Sequential(*layers)

    @property
    def output_bias(self) -> nn.Parameter:
        """The bias of the logit, shape (1,)."""
        return self.layers[-1].bias if len(self.layers) else self.bias  # type: ignore[return-value]

    def forward(self, user: torch.Tensor, item: torch.Tensor, cat: torch.Tensor, num: torch.Tensor) -> torch.Tensor:
        """(B, N·H), (B, H), rows of hashed values (B, C) int64, numbers (B, K) with NaN = absent → logit (B,)."""
        hidden = self.bias + self.blocks["item"](item)
        for n, feature in enumerate(self.features):
            of_feature = user[:, n * item.shape[1] : (n + 1) * item.shape[1]]
            hidden = hidden + self.blocks[block_key(f"user:{feature}")](of_feature)
            hidden = hidden + self.blocks[block_key(f"product:{feature}")](of_feature * item)
        for c, name in enumerate(self.hashed_columns):
            hidden = hidden + self.blocks[block_key(name)](self.tables[block_key(name)](cat[:, c]))
        present = ~num.isnan()
        for k, column in enumerate(self.num_columns):
            number_and_presence = torch.stack([num[:, k].nan_to_num(0.0), present[:, k].to(num.dtype)], 1)
            hidden = hidden + self.blocks[block_key(f"num:{column}")](number_and_presence)
        return self.layers(hidden).squeeze(1)


def block_key(name: str) -> str:
    """Name of a block as a module name, which must not hold a dot."""
    return name.replace("%", "%25").replace(".", "%2E")
