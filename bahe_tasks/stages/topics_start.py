"""What the topics of a lineage's first model start from: texts of its rows, as the shallow layers and as the whole LLM have them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.config import EncoderConfig
from bahe_tasks.core.encoder import encode_texts
from bahe_tasks.core.text_encoder import EmbeddingOverflowError, whole_llm
from bahe_tasks.core.text_topics import TextTopics

TextsAt = Callable[[np.ndarray], Sequence[str]]
"""Numbers of rows of the embedding matrix (K,) int64 → the texts they are of."""
_MOST_TEXTS = 10_000
_LOG = logging.getLogger(__name__)


def start_topics(
    topics: TextTopics,
    read: np.ndarray,
    embeddings: np.ndarray,
    texts_at: TextsAt,
    encoder: EncoderConfig,
    *,
    seed: int,
) -> None:
    """Start the topics from the texts at the rows `read` (M,) of the embeddings; of many texts from some, drawn by the seed."""
    chosen = np.sort(np.random.default_rng(seed).permutation(read)[:_MOST_TEXTS])
    if len(chosen):
        behaviors = np.asarray(embeddings[chosen])
        topics.start_from(behaviors, _by_whole_llm(texts_at(chosen), behaviors, encoder), seed=seed)


def _by_whole_llm(texts: Sequence[str], behaviors: np.ndarray, encoder: EncoderConfig) -> np.ndarray:
    """Return what all layers make of the texts; their behavior embeddings where that is the same or too large to be held."""
    folder = checkpoint_dir(encoder.checkpoint)
    whole = whole_llm(encoder, folder)
    if whole == encoder:
        return behaviors
    try:
        return encode_texts(texts, checkpoint_dir=folder, encoder=whole)
    except EmbeddingOverflowError as error:
        _LOG.warning("topics start from clusters of behavior embeddings, not of the whole LLM's: %s", error)
        return behaviors
