"""Embeddings of the texts that pairs read: as training read them where a day has encoded them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date

import numpy as np
import pyarrow as pa

from bahe_tasks.behavior_key import behavior_key
from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.config import Config
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.encoder import encode_texts
from bahe_tasks.stages.behavior_digests import digest_set, digests_of, keys_of
from bahe_tasks.stages.embedding_index import EmbeddingIndex, are_stored, read_embeddings


def index_of_texts(texts: Iterable[str], model: BaheCtrModel, day: date, config: Config) -> EmbeddingIndex:
    """Return the embeddings of canonical texts by key: the stored ones, and the missing ones encoded now and not kept.

    Encoding a stored text anew would give its numbers with other last bits, which `core.text_ids` takes for another text.
    """
    version = model.spec.encoder_version
    by_key = {behavior_key(text): text for text in texts}
    keys = digest_set(digests_of(pa.array(by_key, pa.string())))
    (known,) = are_stored([keys], config, encoder_version=version)
    stored = read_embeddings(day, config, [keys.digests[known]], encoder_version=version)
    if known.all():
        return stored
    vectors = np.zeros((len(known), stored.vectors.shape[1]), "<f2")
    vectors[known] = stored.vectors
    vectors[~known] = encode_texts(
        [by_key[key] for key in keys_of(keys.digests[~known])],
        checkpoint_dir=checkpoint_dir(config.encoder.checkpoint),
        encoder=config.encoder,
    )
    return EmbeddingIndex(keys, vectors)


def title_rows(index: EmbeddingIndex, titles: Mapping[str, str], items: Iterable[str]) -> np.ndarray:
    """Return the row of each item's title, (I,) int64; -1 = the item has none."""
    return index.rows_of(pa.chunked_array([pa.array([behavior_key(titles.get(item)) for item in items], pa.string())]))
