"""What the topics of a model without a parent start from: texts of its rows, as the shallow layers and as the whole LLM have them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.config import Config, EncoderConfig
from bahe_tasks.core.encoder import encode_by_whole_llm
from bahe_tasks.core.text_encoder import EmbeddingOverflowError
from bahe_tasks.stages.embedding_index import EmbeddingIndex
from bahe_tasks.stages.encode_behaviors import known_texts

TextsAt = Callable[[np.ndarray], Sequence[str]]
"""Numbers of rows of the embedding matrix (K,) int64 → the texts they are of."""
_MOST_TEXTS = 10_000
_LOG = logging.getLogger(__name__)


class TopicsStart(NamedTuple):
    """K texts."""

    embeddings: np.ndarray  # (K, H) float16, behavior embeddings
    whole: np.ndarray  # (K, H) float16, what the whole LLM makes of them


def stored_texts(index: EmbeddingIndex, config: Config) -> TextsAt:
    """Return what finds the texts of an index's rows in the dictionary."""
    return lambda rows: known_texts(config, index.keys_at(rows))


def topics_start(
    read: np.ndarray, embeddings: np.ndarray, texts_at: TextsAt, encoder: EncoderConfig, *, seed: int
) -> TopicsStart:
    """Return the texts at the rows `read` (M,) of the embeddings; of many some, drawn by the seed.

    Where the device has no room for the whole LLM, or float16 for its vectors, behavior embeddings stand for these, and a warning says so.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(read)[:_MOST_TEXTS])
    behaviors = np.asarray(embeddings[chosen])
    _LOG.info("a model without a parent: the whole LLM reads %d texts for its topics to start from", len(chosen))
    try:
        folder = checkpoint_dir(encoder.checkpoint)
        return TopicsStart(behaviors, encode_by_whole_llm(texts_at(chosen), checkpoint_dir=folder, encoder=encoder))
    except (EmbeddingOverflowError, torch.OutOfMemoryError) as error:
        reason = "float16 cannot hold them" if isinstance(error, EmbeddingOverflowError) else "out of memory"
        _LOG.warning("topics start from clusters of behavior embeddings, not of the whole LLM's vectors: %s", reason)
        return TopicsStart(behaviors, behaviors)
