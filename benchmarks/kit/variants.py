"""The training steps that `train_cost` compares: full text, either saving alone, BAHE, grouped, over ragged histories.

All have the same LLM, head, columns, optimiser and clipping; the step is the one of `core.train`, collating included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from bahe_tasks.config import ModelConfig, TrainingConfig
from bahe_tasks.core.batches import Batch, collate
from bahe_tasks.core.compiled_layers import layers_to_compile
from bahe_tasks.core.ctr_model import BaheCtrModel, new_model
from bahe_tasks.core.llm_parts import layers_path
from bahe_tasks.core.llm_split import LlmSplit, ShallowLayers
from bahe_tasks.core.optimizers import Optimizers
from bahe_tasks.core.pooling import pool
from bahe_tasks.core.training_rows import ImpressionRows, num_behaviors, row_columns
from bahe_tasks.core.training_step import default_positions_a_pass, passes
from benchmarks.kit.cost_model import Shape, cost_rows, cost_spec, random_embeddings, random_llm
from benchmarks.kit.full_text import (
    FullTextBatch,
    FullTextCtrModel,
    TokenTable,
    as_trainable,
    collate_full_text,
    without_behaviors,
)
from benchmarks.kit.operations import deep_forward_operations, forward_operations, training_operations

VARIANTS = ("full_text", "dedup_only", "split_only", "bahe", "bahe_ragged", "bahe_grouped")
IMPRESSIONS_PER_USER = 4
NUM_TEXTS = 20_000
"""Distinct texts that cached variants read vectors of."""
_TEXTS_AT_ONCE = 1024
_TOKENS_AT_ONCE = {"full_text": 2048, "split_only": 8192, "dedup_only": 65536}
_TRAINING = TrainingConfig()
SAMPLES_A_STEP = _TRAINING.batch_size_of(0)
"""Of a small log."""


@dataclass
class Variant:
    """A model, a batch of rows and how they become tensors."""

    name: str
    model: BaheCtrModel | FullTextCtrModel
    optimizers: Optimizers
    collate: Callable[[np.ndarray], Batch | FullTextBatch]
    passes: list[np.ndarray]
    """Rows of the batch, pass by pass."""
    labels: torch.Tensor  # (B, 1) float32
    shallow: ShallowLayers | None
    tokens_per_text: int
    pooling: str
    operations: float
    """Of the layers, for one sample: forward and backward of trained ones, forward of frozen ones not cached."""
    bfloat16: bool = False
    """Whether matrix products are, as with `training.compute_dtype: bfloat16`."""

    def step(self) -> None:
        """Do what `core.train` does for one batch."""
        self.optimizers.zero_grad()
        self.forward_backward()
        self.update()

    def update(self) -> None:
        self.optimizers.clip(_TRAINING.max_gradient_norm)
        self.optimizers.step(1.0, number=0)

    def forward_backward(self) -> None:
        for part in self.passes:
            batch, labels = self.collate(part), self.labels[part]
            with torch.autocast(labels.device.type, torch.bfloat16, enabled=self.bfloat16):
                logits = self.model(batch)
            loss = binary_cross_entropy_with_logits(logits.float(), labels, reduction="sum")
            (loss / self.num_samples).backward()

    def keep_gradients(self) -> None:
        """Set dense gradients to zero in place, so that a backward pass need not make room for them."""
        for parameter in self.model.parameters():
            if parameter.grad is not None and not parameter.grad.is_sparse:
                parameter.grad.zero_()

    @property
    def layers_to_compile(self) -> list[nn.Module]:
        """What `training.compile_layers` compiles of BAHE, and of full text all layers."""
        if isinstance(self.model, BaheCtrModel):
            return layers_to_compile(self.model)
        return list(self.model.deep.get_submodule(layers_path(self.model.deep)).children())

    @property
    def num_samples(self) -> int:
        """B."""
        return len(self.labels)

    @property
    def num_held(self) -> int:
        """Samples of the largest pass: what forward and backward hold at once."""
        return max(map(len, self.passes))

    @property
    def useful_positions(self) -> float:
        """Share of the positions of a batch's sequences that are no padding."""
        masks: list[torch.Tensor] = []
        for users in map(self.collate, self.passes):
            masks += (
                [users.histories.mask] if isinstance(users, FullTextBatch) else [g.mask for g in users.users.groups]
            )
        return sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)

    @property
    def state_mb(self) -> float:
        """MB of weights, gradients and two moments of all that is trained, whatever the batch; shallow layers apart."""
        return sum(p.numel() * p.element_size() * (4 if p.requires_grad else 1) for p in self.model.parameters()) / 1e6


def batch_of(variant: str, tokens: int) -> int:
    """Return the samples timed at once: a step's, or as many as a core finishes in seconds."""
    return max(1, _TOKENS_AT_ONCE[variant] // tokens) if variant in _TOKENS_AT_ONCE else SAMPLES_A_STEP


def build(
    variant: str, shape: Shape, *, llm: dict[str, Any], pooling: str, device: torch.device, num_samples: int
) -> Variant:
    """Return a variant with rows for one batch; `pooling` is `model.behavior_pooling`."""
    whole = random_llm(llm, device=device)
    cut_after = whole.config.num_hidden_layers // 2 if variant != "dedup_only" else whole.config.num_hidden_layers
    width, num_tokens = int(whole.config.hidden_size), int(whole.config.vocab_size)
    per_user = IMPRESSIONS_PER_USER if variant == "bahe_grouped" else 1
    # Without a cache nothing is known twice: each position of a batch has a text of its own.
    num_texts = num_samples * shape.texts_per_sample if variant == "split_only" else NUM_TEXTS
    rows = cost_rows(
        shape,
        users=num_samples // per_user,
        impressions_per_user=per_user,
        num_texts=num_texts,
        ragged=variant == "bahe_ragged",
    )
    settings = ModelConfig(behavior_pooling=pooling)  # type: ignore[arg-type]
    spec = cost_spec(shape, whole, num_shallow_layers=cut_after, model=settings)
    labels = torch.from_numpy(rows.labels).to(device).unsqueeze(1)
    columns, index = row_columns(rows, spec), np.arange(num_samples)
    if variant == "full_text":
        full = FullTextCtrModel(replace(spec, model=without_behaviors(settings)), whole).to(device).train()
        tokens = _random_tokens(num_texts, shape, num_tokens)

        def collate_tokens(part: np.ndarray) -> FullTextBatch:
            return collate_full_text(
                rows, tokens, part, columns=columns, features=shape.features, max_tokens=10**9, device=device
            )

        optimizers = Optimizers(as_trainable(full), _TRAINING)
        operations = training_operations(
            forward_operations(whole, sequences=1, length=shape.history_tokens)
            + forward_operations(whole, sequences=1, length=shape.tokens_per_behavior)
        )
        return Variant(
            variant,
            full,
            optimizers,
            collate_tokens,
            [index],
            labels,
            None,
            shape.tokens_per_behavior,
            pooling,
            operations,
        )
    split = LlmSplit.of(whole, cut_after)
    model = new_model(spec, split.deep, seed=0).to(device).train()
    embeddings = random_embeddings(num_texts, width)
    split.shallow.to(device)
    if variant == "split_only":
        _number_apart(rows, shape)
        ids = torch.from_numpy(_random_tokens(num_texts, shape, num_tokens).ids).view(num_texts, -1).to(device)

    def collate_vectors(part: np.ndarray) -> Batch:
        if variant == "split_only":
            embeddings[:] = _encoded(split.shallow, ids)
        return collate(
            rows,
            embeddings,
            part,
            columns=columns,
            features=shape.features,
            device=device,
            cheap_positions=model.cheap_positions,
        )

    most_positions = 0 if variant == "split_only" else default_positions_a_pass(width, device)
    parts = passes(
        index,
        states=columns.user_states,
        positions=num_behaviors(rows, shape.features),
        most_rows=num_samples,
        most_positions=most_positions,
    )
    optimizers = Optimizers(model, _TRAINING)
    length = shape.tokens_per_behavior
    operations = training_operations(
        deep_forward_operations(
            split.deep,
            sequences=shape.num_features / per_user,
            behaviors=shape.behaviors_per_feature,
            pooling=pooling,
        )
        + forward_operations(split.deep.llm, sequences=1, length=1)
    )
    if variant == "split_only":
        operations += forward_operations(split.shallow.llm, sequences=shape.texts_per_sample, length=length)
    return Variant(
        variant, model, optimizers, collate_vectors, parts, labels, split.shallow, length, pooling, operations
    )


def encode_seconds(variant: Variant, *, device: torch.device) -> float:
    """Return the seconds the frozen layers take for one text, 0 where there is no table of embeddings to fill."""
    if variant.shallow is None or variant.name == "split_only":
        return 0.0
    ids = torch.randint(variant.shallow.num_token_ids, (_TEXTS_AT_ONCE, variant.tokens_per_text), device=device)
    _encoded(variant.shallow, ids)
    began = perf_counter()
    _encoded(variant.shallow, ids)
    return (perf_counter() - began) / len(ids)


def _encoded(shallow: ShallowLayers, ids: torch.Tensor) -> np.ndarray:
    """Token ids (M, T) → (M, H) float16."""
    parts = []
    with torch.inference_mode():
        for part in ids.split(_TEXTS_AT_ONCE):
            mask = torch.ones_like(part)
            parts.append(pool(shallow(part, mask), mask, pooling="mean").half().cpu())
    return torch.cat(parts).numpy()


def _random_tokens(num_texts: int, shape: Shape, num_tokens: int) -> TokenTable:
    rng = np.random.default_rng(0)
    length = shape.tokens_per_behavior
    return TokenTable(rng.integers(num_tokens, size=num_texts * length), np.arange(num_texts + 1) * length)


def _number_apart(rows: ImpressionRows, shape: Shape) -> None:
    """Give every behavior position and every title a text of its own."""
    start = 0
    for feature in shape.features:
        behavior_rows = rows.histories[feature].behavior_rows
        behavior_rows[:] = np.arange(start, start + len(behavior_rows))
        start += len(behavior_rows)
    rows.title_rows[:] = np.arange(start, start + len(rows))
