"""The BAHE CTR model: deep layers over behavior embeddings, shared by all text features and the item, and the CTR head.

Follows section 2 of the paper: each text feature's sequence passes separately through the one deep stack and is pooled;
the N results are the user embedding, which does not depend on the candidate item, so it can be published and cached; the
item's title passes through the same stack alone.

Two settings give that up, and their type says so: with `head: din` or `item_reading: beside` there is no
`user_embedding`, only `forward` over histories and items together (`ItemDependentUserError`).

Unusual: an empty history and an unknown item are learned vectors of their own.
"""

from __future__ import annotations

import torch
from torch import nn

from bahe_tasks.core.batches import Batch, ItemBatch, UserBatch
from bahe_tasks.core.columns import LABEL
from bahe_tasks.core.head_fields import ColumnFields, block_key, embedding_fields, field_sizes
from bahe_tasks.core.heads import HEADS, READS_FIELDS
from bahe_tasks.core.llm_split import DeepLayers
from bahe_tasks.core.lora import add_lora, has_lora
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.core.pooling import AttentionPool, pool
from bahe_tasks.core.sequence_inputs import AgeAndPosition, with_item_last
from bahe_tasks.core.target_attention import TargetAttention


class ItemDependentUserError(TypeError):
    """A cached user embedding was asked of a model whose user side depends on the candidate item."""


class BaheCtrModel(nn.Module):
    """Deep layers and head of one model version."""

    def __init__(self, spec: ModelSpec, deep: DeepLayers) -> None:
        super().__init__()
        settings, width = spec.model, deep.width
        self.spec = spec
        self.features = spec.features
        self.deep = deep
        self.age_and_position = AgeAndPosition(
            recency_buckets=settings.recency_buckets, position_buckets=settings.position_buckets, width=width
        )
        self.attention_pool = AttentionPool(width) if settings.behavior_pooling == "attention" else None
        self.empty_history = nn.ParameterDict(
            {block_key(feature): nn.Parameter(0.02 * torch.randn(width)) for feature in spec.features}
        )
        self.unknown_item = nn.Parameter(0.02 * torch.randn(width))
        self.columns = ColumnFields(spec)
        if settings.head == "din":
            self.over_behaviors = TargetAttention(width, settings.attention_width)
            self.over_outputs = TargetAttention(width, settings.attention_width)
        self.head = HEADS[settings.head](field_sizes(spec, width=width), spec.labels, settings)
        self.log_variances = nn.ParameterDict(
            {block_key(label): nn.Parameter(torch.zeros(())) for label in spec.labels if spec.extra_labels}
        )
        if settings.deep_tuning == "lora" and not has_lora(deep):
            add_lora(deep, rank=settings.lora_rank, alpha=settings.lora_alpha, dropout=settings.lora_dropout)

    def user_embedding(self, users: UserBatch) -> torch.Tensor:
        """Histories of B users → (B, N·H), text features in sorted order. Raises `ItemDependentUserError`."""
        self._refuse_if_item_dependent()
        return self._user_side(users, None, None)[0]

    def item_embedding(self, items: ItemBatch) -> torch.Tensor:
        """Titles of B items → (B, H)."""
        titles = items.titles.unsqueeze(1)
        outputs = self.deep(titles, torch.ones_like(titles[:, :, 0], dtype=torch.long))[:, 0]
        return torch.where(items.known.unsqueeze(1), outputs, self.unknown_item)

    def click_logit(
        self, user_embedding: torch.Tensor, item_embedding: torch.Tensor, cat: torch.Tensor, num: torch.Tensor
    ) -> torch.Tensor:
        """(B, N·H), (B, H), hashed rows (B, C) int64, numbers (B, K) → logit of a click (B,).

        Raises `ItemDependentUserError`.
        """
        self._refuse_if_item_dependent()
        fields = embedding_fields(self.features, user_embedding, item_embedding) | self.columns(cat, num)
        return self.head(fields)[:, 0]

    def forward(self, batch: Batch) -> torch.Tensor:
        """Logits of a batch, (B, L), the click's first."""
        item = self.item_embedding(batch.items)
        user, attended = self._user_side(batch.users, batch.items, item)
        fields = embedding_fields(self.features, user, item) | attended | self.columns(batch.cat, batch.num)
        return self.head(fields)

    def _user_side(
        self, users: UserBatch, items: ItemBatch | None, item: torch.Tensor | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Histories, and where the user side depends on it the item → (B, N·H), and fields (B, H) of target attention.

        An empty history is attended to as zero.
        """
        num_features, width = len(self.features), self.deep.width
        pooled = self._empty_histories(users.num_rows)  # (B·N, H)
        over_behaviors, over_outputs = torch.zeros_like(pooled), torch.zeros_like(pooled)
        for group in users.groups:
            hidden, mask = self.age_and_position(group), group.mask
            row = group.slots // max(num_features, 1)
            if self.spec.model.item_reading == "beside" and items is not None:
                hidden, mask = with_item_last(hidden, mask, items.titles[row], items.known[row])
            outputs = self.deep(hidden, mask.long())
            pooled = pooled.index_copy(0, group.slots, self._pool(outputs, mask))
            if self.spec.model.head == "din" and items is not None and item is not None:
                of_behaviors = self.over_behaviors(items.titles[row], hidden, mask)
                over_behaviors = over_behaviors.index_copy(0, group.slots, of_behaviors)
                over_outputs = over_outputs.index_copy(0, group.slots, self.over_outputs(item[row], outputs, mask))
        attended: dict[str, torch.Tensor] = {}
        if self.spec.model.head == "din":
            for kind, over in (("target", over_behaviors), ("target_deep", over_outputs)):
                by_feature = over.view(users.num_rows, num_features, width).unbind(1)
                attended |= {f"{kind}:{f}": part for f, part in zip(self.features, by_feature, strict=True)}
        return pooled.view(users.num_rows, num_features * width), attended

    def _refuse_if_item_dependent(self) -> None:
        if not self.spec.model.user_is_cacheable:
            raise ItemDependentUserError(
                "with model.head din or model.item_reading beside, the user side depends on the candidate item: "
                "there is no user embedding to cache; score histories and items together"
            )

    def _empty_histories(self, num_rows: int) -> torch.Tensor:
        """Return (B·N, H), the learned vector of each text feature's empty history."""
        if not self.features:
            return self.unknown_item.new_zeros(0, self.deep.width)
        return torch.stack([self.empty_history[block_key(feature)] for feature in self.features]).repeat(num_rows, 1)

    def _pool(self, outputs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.attention_pool is not None:
            return self.attention_pool(outputs, mask)
        return pool(outputs, mask, pooling=self.spec.model.behavior_pooling)  # type: ignore[arg-type]


def new_model(spec: ModelSpec, deep: DeepLayers, *, seed: int, base_rate: float = 0.5) -> BaheCtrModel:
    """Return an untrained model over pre-trained deep layers, which it takes over.

    `base_rate` is the share of clicks among the training rows: the logit's bias starts there, so that a log with few
    clicks is calibrated from the first step on.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BaheCtrModel(spec, deep)
    model.head.outputs.start_at(LABEL, base_rate)
    return model.eval()


def grow_model(parent: BaheCtrModel, spec: ModelSpec, *, seed: int) -> BaheCtrModel:
    """Return a model of the grown `spec` with the parent's weights and the parent's outputs on inputs the parent knew.

    What reads a new text feature or number is zero at first; a new hashed column is read, but its embeddings are zero.
    The deep layers are taken over, not copied: do not train the parent afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BaheCtrModel(spec, parent.deep)
    old = parent.state_dict()
    new = model.state_dict()
    hashed = {block_key(name) for name in spec.hashed_columns}
    for name in new.keys() - old.keys():
        if name.startswith(READS_FIELDS) and hashed.isdisjoint(name.split(".")):
            new[name].zero_()
    for name in old:
        new[name].copy_(old[name])
    return model.eval()
