"""The BAHE CTR model: deep layers over behavior embeddings, shared by all text features and the item, and the CTR head.

Follows section 2 of the paper: each text feature's sequence passes separately through the one deep stack and is pooled;
the N results are the user embedding, which never depends on the candidate item, so it can be published and cached; the
item's title passes through the same stack alone.

Unusual: the age of each behavior is added to it as a learned vector (an encoder's layers know no order otherwise), zero
at first, so that an untrained model computes what the pre-trained LLM does. An empty history and an unknown item are
learned vectors of their own.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from bahe_tasks.core.batches import Batch, ItemBatch, UserBatch
from bahe_tasks.core.heads import MlpHead, block_key
from bahe_tasks.core.llm_split import DeepLayers
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.core.pooling import pool

_FINEST_AGE_S = 60.0
_COARSEST_AGE_S = 365 * 86400.0


class BaheCtrModel(nn.Module):
    """Deep layers and head of one model version."""

    def __init__(self, spec: ModelSpec, deep: DeepLayers) -> None:
        super().__init__()
        self.spec = spec
        self.features = spec.features
        self.pooling = spec.model.behavior_pooling
        self.deep = deep
        width = deep.width
        buckets = spec.model.recency_buckets
        self.recency = nn.Embedding(buckets, width) if buckets else None
        if self.recency is not None:
            nn.init.zeros_(self.recency.weight)
        self.empty_history = nn.ParameterDict(
            {block_key(feature): nn.Parameter(0.02 * torch.randn(width)) for feature in spec.features}
        )
        self.unknown_item = nn.Parameter(0.02 * torch.randn(width))
        self.head = MlpHead(spec, width=width)

    def user_embedding(self, users: UserBatch) -> torch.Tensor:
        """Histories of B users → (B, N·H), text features in sorted order."""
        width = self.deep.width
        if not self.features:
            return self.unknown_item.new_zeros(users.num_rows, 0)
        empty = torch.stack([self.empty_history[block_key(feature)] for feature in self.features])
        pooled = empty.repeat(users.num_rows, 1)  # (B·N, H)
        for group in users.groups:
            behaviors = group.behaviors
            if self.recency is not None:
                behaviors = behaviors + self.recency(age_buckets(group.ages_s, num_buckets=self.recency.num_embeddings))
            outputs = self.deep(behaviors, group.mask.long())
            pooled = pooled.index_copy(0, group.slots, pool(outputs, group.mask, pooling=self.pooling))
        return pooled.view(users.num_rows, len(self.features) * width)

    def item_embedding(self, items: ItemBatch) -> torch.Tensor:
        """Titles of B items → (B, H)."""
        titles = items.titles.unsqueeze(1)
        outputs = self.deep(titles, torch.ones_like(titles[:, :, 0], dtype=torch.long))[:, 0]
        return torch.where(items.known.unsqueeze(1), outputs, self.unknown_item)

    def click_logit(
        self, user_embedding: torch.Tensor, item_embedding: torch.Tensor, cat: torch.Tensor, num: torch.Tensor
    ) -> torch.Tensor:
        """(B, N·H), (B, H), hashed rows (B, C) int64, numbers (B, K) → logit of a click (B,)."""
        return self.head(user_embedding, item_embedding, cat, num)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Click logits (B,) of a batch."""
        return self.click_logit(
            self.user_embedding(batch.users), self.item_embedding(batch.items), batch.cat, batch.num
        )


def age_buckets(ages_s: torch.Tensor, *, num_buckets: int) -> torch.Tensor:
    """Return the bucket of each age in seconds, equal steps of log(1 + age / minute) up to a year, the last one open."""
    log_age = torch.log1p(ages_s.clamp(min=0) / _FINEST_AGE_S)
    per_bucket = math.log1p(_COARSEST_AGE_S / _FINEST_AGE_S) / num_buckets
    return (log_age / per_bucket).long().clamp(max=num_buckets - 1)


def new_model(spec: ModelSpec, deep: DeepLayers, *, seed: int, base_rate: float = 0.5) -> BaheCtrModel:
    """Return an untrained model over pre-trained deep layers, which it takes over.

    `base_rate` is the share of clicks among the training rows: the logit's bias starts there, so that a log with few
    clicks is calibrated from the first step on.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BaheCtrModel(spec, deep)
    rate = min(max(base_rate, 1e-4), 1 - 1e-4)
    with torch.no_grad():
        model.head.output_bias.fill_(math.log(rate / (1 - rate)))
    return model.eval()


def grow_model(parent: BaheCtrModel, spec: ModelSpec, *, seed: int) -> BaheCtrModel:
    """Return a model of the grown `spec` with the parent's weights and the parent's outputs on inputs the parent knew.

    Blocks the parent lacks read nothing at first: their weights are zero, but for hashed columns, whose embeddings are.
    The deep layers are taken over, not copied: do not train the parent afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BaheCtrModel(spec, parent.deep)
    old = parent.state_dict()
    new = model.state_dict()
    hashed = tuple(f"head.blocks.{block_key(name)}." for name in spec.hashed_columns)
    for name in new.keys() - old.keys():
        if name.startswith("head.blocks.") and not name.startswith(hashed):
            new[name].zero_()
    for name in old:
        new[name].copy_(old[name])
    return model.eval()
