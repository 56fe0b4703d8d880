"""The frozen shallow layers over texts, in batches of a token budget (paper, section 2).

Unusual: batches depend on the texts alone, sorted by number of tokens and cut by the budget, and on a CPU each of several
is computed by one thread: bits do not depend on how many there are. A GPU that runs out of
memory halves the budget; from then on batches are smaller, which may move the last bits of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from bahe_tasks.config import EncoderConfig
from bahe_tasks.core.batch_threads import batch_a_thread
from bahe_tasks.core.halving import Halving
from bahe_tasks.core.llm_split import LlmSplit
from bahe_tasks.core.packed_linear import pack_linears
from bahe_tasks.core.pooling import pool
from bahe_tasks.core.tokens import TextTokenizer, padded

_TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 32768}
"""What `encoder.tokens_per_batch: 0` stands for: a CPU is fastest while a batch fits its caches (`encode_cost`)."""


class EmbeddingOverflowError(ArithmeticError):
    """Behavior embeddings that float16 cannot hold, or that are not numbers."""


class TextEncoder:
    """A checkpoint's tokenizer and shallow layers, or with `whole` all of its LLM, ready on `device`.

    Raises `TokenizerNotFoundError` and what `LlmSplit.load` raises.
    """

    def __init__(
        self, checkpoint_dir: Path, encoder: EncoderConfig, *, device: torch.device, whole: bool = False
    ) -> None:
        self.encoder = encoder
        self.device = device
        self.tokens_per_batch = encoder.tokens_per_batch or _TOKENS_PER_BATCH[device.type]
        dtype = getattr(torch, encoder.compute_dtype)  # set at loading: a cast would round rotary frequencies too
        split = LlmSplit.load(checkpoint_dir, encoder.num_shallow_layers, dtype=dtype)
        self.shallow = split.shallow.to(device)
        self.deep = split.deep.to(device) if whole else None
        self.tokenize = TextTokenizer(checkpoint_dir, encoder, num_token_ids=self.shallow.num_token_ids)
        pack_linears(self.shallow, rows=self.tokens_per_batch)
        self._halving = Halving(
            device, unit="tokens a batch", advice="Set encoder.tokens_per_batch lower to begin there."
        )

    @property
    def width(self) -> int:
        """H."""
        return self.shallow.width

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return the behavior embedding of each text, (M, H) float16; with `whole` what the LLM makes of it. Raises `EmbeddingOverflowError`.

        A text is cut off after T = `encoder.max_tokens_per_behavior` tokens, special tokens included.
        """
        if not texts:
            return np.zeros((0, self.width), np.float16)
        token_ids = self.tokenize(texts)
        order = sorted(range(len(texts)), key=lambda i: len(token_ids[i]))
        lengths = [len(token_ids[i]) for i in order]
        pooled: list[torch.Tensor] = []
        done = 0
        while done < len(order):
            counts = batch_sizes(lengths[done:], tokens_per_batch=self.tokens_per_batch)
            ends = done + np.cumsum(counts)
            batches = [
                [token_ids[i] for i in order[end - count : end]] for end, count in zip(ends, counts, strict=True)
            ]
            for vectors, batch in zip(batch_a_thread(self._pooled, batches, device=self.device), batches, strict=True):
                if vectors is None:
                    self.tokens_per_batch = self._halving.of(len(batch) * len(batch[-1]))
                    break
                pooled.append(vectors)
                done += len(batch)
        embeddings = np.empty((len(texts), self.width), np.float16)
        embeddings[order] = torch.cat(pooled).cpu().numpy()  # one wait for the device, not one a batch
        finite = np.isfinite(embeddings).all(1)
        if not finite.all():
            raise EmbeddingOverflowError(
                f"the text {texts[int(np.argmin(finite))]!r} has an embedding that float16 cannot hold: choose another "
                "encoder.num_shallow_layers or encoder.compute_dtype"
            )
        return embeddings

    @torch.inference_mode()
    def _pooled(self, token_ids: list[list[int]]) -> torch.Tensor | None:
        """Return (B, H) float16 on the device, or None where the device has no memory for several texts at once."""
        input_ids, mask = (tensor.to(self.device) for tensor in padded(token_ids))
        try:
            hidden = self.shallow(input_ids, mask)
            if self.deep is not None:
                hidden = self.deep(hidden, mask)
            return pool(hidden.float(), mask, pooling=self.encoder.pooling).half()
        except torch.OutOfMemoryError as error:
            if len(token_ids) > 1:
                return None
            error.add_note(
                f"One text of {len(token_ids[0])} tokens does not fit the device's memory: lower "
                "encoder.max_tokens_per_behavior or encoder.num_shallow_layers, or set encoder.device to cpu."
            )
            raise


def batch_sizes(lengths: Sequence[int], *, tokens_per_batch: int) -> list[int]:
    """Return how many of the texts of ascending `lengths` (tokens) each batch holds.

    With padding at most `tokens_per_batch` tokens, and at least one text. A batch that is a quarter full ends where
    texts get longer: one without padding needs no attention mask, which is faster than the larger batch.
    """
    sizes = [0] if lengths else []
    for shorter, length in pairwise([0, *lengths]):
        fits = (sizes[-1] + 1) * length <= tokens_per_batch
        full_enough = length > shorter and 4 * sizes[-1] * shorter >= tokens_per_batch
        if sizes[-1] and (full_enough or not fits):
            sizes.append(0)
        sizes[-1] += 1
    return sizes
