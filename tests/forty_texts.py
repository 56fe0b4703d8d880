"""Forty texts and an embedding of each, for tests that no table and no real LLM is needed for."""

from __future__ import annotations

import numpy as np

WIDTH = 32
TEXTS = [f"{thing} {place}" for thing in ("bread", "cake", "train", "bus", "rent") for place in "abcdefgh"]
EMBEDDINGS = np.random.default_rng(0).normal(size=(len(TEXTS), WIDTH)).astype(np.float16)
"""Row n is of text n."""
