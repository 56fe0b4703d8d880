"""Rows and models of a given shape, for measuring cost: random weights, random behaviors, labels of a fair coin.

Nothing here says anything about quality. Grouped and ungrouped training differ in the rows alone: several impressions of
one user at one time share one history, or each has a user of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from bahe_tasks.config import ModelConfig
from bahe_tasks.core.columns import NumStatistics
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.core.point_in_time import NUMBERS
from bahe_tasks.core.training_rows import Histories, ImpressionRows

_SHOWN_AT = 400 * 86400 * 1_000_000


@dataclass(frozen=True)
class Shape:
    """What a training row is made of."""

    num_features: int  # N
    behaviors_per_feature: int  # S
    tokens_per_behavior: int  # T, of a title too

    @property
    def features(self) -> tuple[str, ...]:
        """N names in sorted order."""
        return tuple(f"feature{n}" for n in range(self.num_features))

    @property
    def texts_per_sample(self) -> int:
        """Behaviors and title."""
        return self.num_features * self.behaviors_per_feature + 1

    @property
    def history_tokens(self) -> int:
        """N·S·T."""
        return self.num_features * self.behaviors_per_feature * self.tokens_per_behavior


def random_llm(
    settings: dict[str, Any], *, device: torch.device, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Build a base model of `model_type` and the other settings of its configuration, its weights drawn on `device`."""
    settings = dict(settings)
    config = CONFIG_MAPPING[settings.pop("model_type")](**settings)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(0)
        return AutoModel.from_config(config, dtype=dtype).eval()


def cost_spec(
    shape: Shape,
    llm: PreTrainedModel,
    *,
    num_shallow_layers: int,
    model: ModelConfig,
    cat_columns: tuple[str, ...] = (),
    num_columns: tuple[str, ...] = (),
) -> ModelSpec:
    """Return the spec of a model over that LLM, its numeric columns of mean 0 and deviation 1."""
    return ModelSpec(
        features=shape.features,
        cat_columns=cat_columns,
        num_statistics={name: NumStatistics(0.0, 1.0) for name in num_columns},
        encoder_version="random",
        num_shallow_layers=num_shallow_layers,
        llm_config=json.loads(llm.config.to_json_string()),
        model=model,
        numbers=NUMBERS if model.point_in_time_numbers else (),
    )


def cost_rows(
    shape: Shape, *, users: int, impressions_per_user: int, num_texts: int, ragged: bool = False, seed: int = 0
) -> ImpressionRows:
    """Return users · impressions_per_user rows; those of a user stand together, share time and histories.

    Every history has S behaviors, or if `ragged` 1 to 2 S - 1, any number as likely; each is drawn from `num_texts` texts,
    as are the titles.
    """
    rng = np.random.default_rng(seed)
    num_rows = users * impressions_per_user
    user = np.repeat(np.arange(users), impressions_per_user)
    num_histories, length = users * shape.num_features, shape.behaviors_per_feature
    lengths = rng.integers(1, 2 * length, size=num_histories) if ragged else np.full(num_histories, length)
    histories = dict(zip(shape.features, np.split(lengths, shape.num_features), strict=True))
    return ImpressionRows(
        impression_ids=np.array([f"i{r}" for r in range(num_rows)], object),
        user_ids=np.array([f"u{u}" for u in user], object),
        item_ids=np.array([f"m{m}" for m in rng.integers(1000, size=num_rows)], object),
        shown_at=np.full(num_rows, _SHOWN_AT, np.int64),
        as_of=np.full(num_rows, _SHOWN_AT, np.int64),
        labels=rng.integers(2, size=num_rows).astype(np.float32),
        title_rows=rng.integers(num_texts, size=num_rows),
        histories={name: _random_histories(of_users, user, num_texts, rng) for name, of_users in histories.items()},
        cat={},
        num={},
    )


def _random_histories(lengths: np.ndarray, user: np.ndarray, num_texts: int, rng: np.random.Generator) -> Histories:
    """Return the histories of users, so many behaviors each, for the rows of each `user` (R,)."""
    ends = np.cumsum(lengths)
    occurred_at = rng.integers(_SHOWN_AT, size=ends[-1])
    of_user = np.repeat(np.arange(len(lengths)), lengths)
    return Histories(
        behavior_rows=rng.integers(num_texts, size=ends[-1]),
        occurred_at=occurred_at[np.lexsort((occurred_at, of_user))],
        starts=(ends - lengths)[user],
        ends=ends[user],
    )


def random_embeddings(num_texts: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Return behavior embeddings nobody encoded, (num_texts, H) float16."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((num_texts, width), np.float32).astype(np.float16)
