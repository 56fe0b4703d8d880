"""The BAHE CTR model: deep layers over behavior embeddings, shared by all text features and the item, and the CTR head.

Follows section 2 of the paper: each text feature's sequence passes separately through the one deep stack and is pooled;
the N results are the user embedding, which does not depend on the candidate item, so it can be published and cached; the
item's title passes through the same stack alone.

Two settings give that up, and their type says so: with `head: din` or `item_reading: beside` there is no
`user_embedding`, only `forward` over histories and items together (`ItemDependentUserError`).

Unusual: an empty history and an unknown item are learned vectors of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn.functional import pad

from bahe_tasks.core.batches import Batch, ItemBatch, UserBatch
from bahe_tasks.core.expected_click import ExpectedClick, label_logits
from bahe_tasks.core.head_fields import ColumnFields, block_key, embedding_fields, embedding_parts, field_sizes
from bahe_tasks.core.heads import HEADS, READS_FIELDS, label_key
from bahe_tasks.core.history_extent import extents
from bahe_tasks.core.llm_split import DeepLayers
from bahe_tasks.core.lora import add_lora, has_lora, set_lora_dropout
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.core.pooling import AttentionPool, pool, pooled_position
from bahe_tasks.core.sequence_inputs import AgeAndPosition, with_item_last, with_summary_last
from bahe_tasks.core.target_attention import TargetAttention
from bahe_tasks.core.text_ids import TextIdEmbeddings
from bahe_tasks.core.text_topics import TextTopics
from bahe_tasks.core.user_fields import EmbeddingParts, Field, fields_apart, fields_by_user


class ItemDependentUserError(TypeError):
    """A cached user embedding was asked of a model whose user side depends on the candidate item."""


class DeepSequences(NamedTuple):
    """Q sequences of one group after the deep pass."""

    hidden: torch.Tensor  # (Q, S, H), what went in
    outputs: torch.Tensor | None  # (Q, S, H), what came out, where more than the pooled vector is read of it
    pooled: torch.Tensor  # (Q, E + X)
    behaviors: torch.Tensor  # (Q, S) bool, the mask without the item and the summary that may stand beside them
    slots: torch.Tensor  # (Q,) int64, u * N + n


class BaheCtrModel(nn.Module):
    """Deep layers and head of one model version."""

    def __init__(self, spec: ModelSpec, deep: DeepLayers) -> None:
        super().__init__()
        settings, width = spec.model, deep.width
        self.spec = spec
        self.features = spec.features
        self.deep = deep
        self.topics = TextTopics(width, settings.text_topics) if settings.text_topics else None
        id_width = settings.text_id_width
        self.text_ids = TextIdEmbeddings(settings.hash_buckets, id_width) if id_width else None
        self.age_and_position = AgeAndPosition(
            recency_buckets=settings.recency_buckets, position_buckets=settings.position_buckets, width=width
        )
        self.attention_pool = AttentionPool(width) if settings.behavior_pooling == "attention" else None
        self.empty_history = nn.ParameterDict(
            {block_key(f"user:{feature}"): nn.Parameter(0.02 * torch.randn(width)) for feature in spec.features}
        )
        self.unknown_item = nn.Parameter(0.02 * torch.randn(width))
        self.columns = ColumnFields(spec)
        if settings.head == "din":
            self.over_behaviors = TargetAttention(width, settings.attention_width)
            self.over_outputs = TargetAttention(width, settings.attention_width)
        self.head = HEADS[settings.head](field_sizes(spec, width=width), spec.labels, settings)
        self.expected_click = ExpectedClick() if spec.numbers else None
        self.log_variances = nn.ParameterDict(
            {label_key(label): nn.Parameter(torch.zeros(())) for label in spec.landed_labels if spec.extra_labels}
        )
        if settings.deep_tuning == "lora" and not has_lora(deep):
            add_lora(deep, rank=settings.lora_rank, alpha=settings.lora_alpha, dropout=settings.lora_dropout)

    @property
    def parts(self) -> EmbeddingParts:
        """What stands in a text feature's part of a user embedding, and in an item embedding."""
        return embedding_parts(self.spec, width=self.deep.width)

    def user_embedding(self, users: UserBatch) -> torch.Tensor:
        """Histories of U users → (U, N·(E + X)), text features in sorted order. Raises `ItemDependentUserError`."""
        self._refuse_if_item_dependent()
        return self._pooled(users.num_rows, self._deep_pass(users, None))

    def rows_in_use(self) -> dict[str, float]:
        """Return the share of rows that have been trained on, of the table of each hashed column and of texts: "id:user", "cat:NAME", "texts".

        As large a share of their values has a row that another has too: rows are drawn by a hash.
        """
        tables: dict[str, nn.Embedding] = {
            name: self.columns.tables[block_key(name)]  # type: ignore[misc]
            for name in self.columns.hashed_columns
        }
        if self.text_ids is not None:
            tables["texts"] = self.text_ids.table
        return {name: float(table.weight.detach().any(1).double().mean()) for name, table in tables.items()}

    def item_embedding(self, items: ItemBatch) -> torch.Tensor:
        """Titles of I items → (I, E)."""
        titles = items.titles.unsqueeze(1)
        outputs = self.deep(titles, torch.ones_like(titles[:, :, 0], dtype=torch.long))[:, 0]
        shares = self.topics(items.titles) if self.topics is not None else None
        ids = self.text_ids(items.titles) if self.text_ids is not None else None
        unknown = self._unread(self.unknown_item)[: self.parts.of_item]
        return torch.where(items.known.unsqueeze(1), _beside(outputs, shares, ids), unknown)

    def click_logit(
        self,
        user_embedding: torch.Tensor,
        item_embedding: torch.Tensor,
        cat: torch.Tensor,
        num: torch.Tensor,
        *,
        counts: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, N·(E + X)), (B, E), hashed rows (B, C) int64, numbers (B, K) → logit of a click (B,).

        With `counts` (U,) int64 pairs stand together by user, so many of each, and user embeddings are (U, N·(E + X)): then
        the head does a user's share once. Raises `ItemDependentUserError`.
        """
        self._refuse_if_item_dependent()
        embeddings: Mapping[str, Field] = (
            fields_apart(self.features, user_embedding, item_embedding, parts=self.parts)
            if counts is None
            else fields_by_user(self.features, user_embedding, counts, item_embedding, parts=self.parts)
        )
        fields = {**embeddings, **self.columns(cat, num)}
        return label_logits(self.head, self.expected_click, fields, click_only=True)[:, 0]

    def forward(self, batch: Batch) -> torch.Tensor:
        """Logits of a batch, (B, L), the click's first."""
        item = self.item_embedding(batch.items)[batch.item_of]
        items_of_users = None
        if self.spec.model.item_reading == "beside":  # then every impression is a user state of its own
            item_of_user = batch.item_of[batch.user_of.argsort()]
            items_of_users = ItemBatch(batch.items.titles[item_of_user], batch.items.known[item_of_user])
        sequences = self._deep_pass(batch.users, items_of_users)
        user = self._pooled(batch.users.num_rows, sequences)[batch.user_of]
        fields = embedding_fields(self.features, user, item, parts=self.parts)
        fields |= self.columns(batch.cat, batch.num)
        if self.spec.model.head == "din":
            titles = batch.items.titles[batch.item_of]
            fields |= self._attended(sequences, batch.user_of, titles, item[:, : self.deep.width])
        return label_logits(self.head, self.expected_click, fields)

    @property
    def cheap_positions(self) -> bool:
        """Whether next to nothing is computed at each position of a sequence, so that padding costs less than one more pass."""
        if self._read_position is None:
            return False
        layers, attention = len(self.deep.layers), self.deep.one_query
        return not layers or (layers == 1 and attention is not None and None not in (attention.key, attention.value))

    @property
    def _read_position(self) -> Literal["first", "last"] | None:
        """Which position of the deep layers' outputs is read; None: more than one."""
        pooling = self.spec.model.behavior_pooling
        if pooling in ("mean", "attention") or self.spec.model.head == "din":
            return None
        return "first" if pooling == "first" else "last"

    def _deep_pass(self, users: UserBatch, items: ItemBatch | None) -> list[DeepSequences]:
        """Pass each group of sequences through the deep layers; `items`, one a user, stand beside their behaviors."""
        found = []
        for group in users.groups:
            hidden, mask, behaviors = self.age_and_position(group), group.mask, group.mask
            if items is not None:
                user = group.slots // len(self.features)
                hidden, mask = with_item_last(hidden, mask, items.titles[user], items.known[user])
            if self.spec.model.behavior_pooling == "summary":
                hidden, mask = with_summary_last(hidden, mask)
            behaviors = pad(behaviors, (0, mask.shape[1] - behaviors.shape[1]))
            outputs, pooled = self._outputs_and_pooled(hidden, mask)
            shares = self.topics.of_histories(group.behaviors, group.mask) if self.topics is not None else None
            ids = self.text_ids.of_histories(group.behaviors, group.mask) if self.text_ids is not None else None
            pooled = _beside(pooled, shares, ids, extents(group.mask) if self.parts.extent else None)
            found.append(DeepSequences(hidden, outputs, pooled, behaviors, group.slots))
        return found

    def _outputs_and_pooled(self, hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        """(Q, S, H) and mask (Q, S) → outputs of the deep layers, if they are read, and the pooled vector (Q, H)."""
        pooling = "last" if self.spec.model.behavior_pooling == "summary" else self.spec.model.behavior_pooling
        if self._read_position is not None:
            return None, self.deep.at(pooled_position(mask, pooling=self._read_position), hidden, mask.long())
        outputs = self.deep(hidden, mask.long())
        if self.attention_pool is not None:
            return outputs, self.attention_pool(outputs, mask)
        return outputs, pool(outputs, mask, pooling=pooling)  # type: ignore[arg-type]

    def _pooled(self, num_users: int, sequences: list[DeepSequences]) -> torch.Tensor:
        """Return the pooled outputs of U users, (U, N·(E + X)); an empty history is the learned vector of its text feature."""
        if not self.features:
            return self.unknown_item.new_zeros(num_users, 0)
        empty = torch.stack([self._unread(self.empty_history[block_key(f"user:{f}")]) for f in self.features])
        pooled = empty.repeat(num_users, 1)  # (U·N, E + X)
        for part in sequences:
            pooled = pooled.index_copy(0, part.slots, part.pooled.to(pooled.dtype))
        return pooled.view(num_users, -1)

    def _unread(self, learned: torch.Tensor) -> torch.Tensor:
        """Put equal shares of topics, no id and no length beside the learned vector (H) of what cannot be read: (E + X)."""
        parts = self.parts
        shares = learned.new_full((parts.topics,), 1 / max(parts.topics, 1))
        length = extents(learned.new_zeros(1, 1))[0, : parts.extent]
        return torch.cat([learned, shares, learned.new_zeros(parts.text_id), length])

    def _attended(
        self, sequences: list[DeepSequences], user_of: torch.Tensor, titles: torch.Tensor, item: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the fields of target attention, (B, H) each: over behavior embeddings by title, over outputs by item.

        `titles` and `item` are (B, H). An empty history is attended to as zero.
        """
        num_features = len(self.features)
        slot_of = (user_of.unsqueeze(1) * num_features + torch.arange(num_features, device=user_of.device)).flatten()
        over_behaviors, over_outputs = (item.new_zeros(len(slot_of), item.shape[1]) for _ in range(2))  # (B·N, H)
        for part in sequences:
            assert part.outputs is not None
            q_of = slot_of.new_full((int(slot_of.max()) + 1,), -1)
            q_of[part.slots] = torch.arange(len(part.slots), device=slot_of.device)
            at = (q_of[slot_of] >= 0).nonzero().squeeze(1)  # impression · feature pairs of this group
            q, b = q_of[slot_of[at]], at // num_features
            mask = part.behaviors[q]
            of_behaviors = self.over_behaviors(titles[b], part.hidden[q], mask)
            of_outputs = self.over_outputs(item[b], part.outputs[q], mask)
            over_behaviors = over_behaviors.index_copy(0, at, of_behaviors.to(item.dtype))
            over_outputs = over_outputs.index_copy(0, at, of_outputs.to(item.dtype))
        fields: dict[str, torch.Tensor] = {}
        for kind, over in (("target", over_behaviors), ("target_deep", over_outputs)):
            by_feature = over.view(len(item), num_features, -1).unbind(1)
            fields |= {f"{kind}:{name}": part for name, part in zip(self.features, by_feature, strict=True)}
        return fields

    def _refuse_if_item_dependent(self) -> None:
        if not self.spec.model.user_is_cacheable:
            raise ItemDependentUserError(
                "with model.head din or model.item_reading beside, the user side depends on the candidate item: "
                "there is no user embedding to cache; score histories and items together"
            )


def _beside(vectors: torch.Tensor, *others: torch.Tensor | None) -> torch.Tensor:
    """Put shares of topics (…, Z), ids of texts (…, W) and lengths (…, X), if there are any, beside vectors (…, H)."""
    return torch.cat([vectors, *(other.to(vectors.dtype) for other in others if other is not None)], -1)


def new_model(
    spec: ModelSpec, deep: DeepLayers, *, seed: int, base_rates: Mapping[str, float] | None = None
) -> BaheCtrModel:
    """Return an untrained model over pre-trained deep layers, which it takes over.

    `base_rates` are the shares of ones among the training rows, by label: each logit's bias starts there, so that a log
    with few clicks is calibrated from the first step on.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BaheCtrModel(spec, deep)
    model.head.outputs.start_at(base_rates or {})
    return model.eval()


def grow_model(
    parent: BaheCtrModel, spec: ModelSpec, *, seed: int, base_rates: Mapping[str, float] | None = None
) -> BaheCtrModel:
    """Return a model of the grown `spec` with the parent's weights and the parent's outputs on inputs the parent knew.

    What reads a new text feature or number is zero at first. A new hashed column is read, and so are the ids of a new feature's
    texts, but those are zero until they are learned: of two factors that are zero neither would ever move. A new label's
    logit starts at its base rate.
    The deep layers are taken over, not copied: do not train the parent afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BaheCtrModel(spec, parent.deep)
    model.head.outputs.start_at(base_rates or {})
    set_lora_dropout(model.deep, spec.model.lora_dropout)
    old = parent.state_dict()
    new = model.state_dict()
    zero_themselves = {block_key(name) for name in (*spec.hashed_columns, *(f"text_id:{f}" for f in spec.features))}
    for name in new.keys() - old.keys():
        if name.startswith(READS_FIELDS) and zero_themselves.isdisjoint(name.split(".")):
            new[name].zero_()
    for name in old:
        new[name].copy_(old[name])
    return model.eval()
