"""Behavior embeddings: the frozen shallow layers over each distinct text, pooled to one vector (paper, section 2).

Unusual: the batches depend on the set of texts alone, not on the order they arrive in. Texts are sorted by number of
tokens, then by text, and cut by a token budget, so encoding the same set again gives equal bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from bahe_tasks.config import EncoderConfig
from bahe_tasks.core.device import pick_device
from bahe_tasks.core.llm_check import cause
from bahe_tasks.core.llm_split import LlmSplit
from bahe_tasks.core.pooling import pool

_TEXTS_PER_TOKENIZER_CALL = 4096


class TokenizerNotFoundError(ValueError):
    """A checkpoint's tokenizer is missing, broken, or that of another LLM."""


class EmbeddingOverflowError(ArithmeticError):
    """Behavior embeddings that float16 cannot hold, or that are not numbers."""


def encode_texts(
    texts: Sequence[str],
    *,
    checkpoint_dir: Path,
    encoder: EncoderConfig,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return the behavior embedding of each text, in the order given: (M, H) float16.

    A text is cut off after T = `encoder.max_tokens_per_behavior` tokens, special tokens included; a text repeated in
    `texts` is computed once. `progress` is called with the distinct texts done and their total. Raises
    `EmbeddingOverflowError` when a vector does not fit float16, `TokenizerNotFoundError`, and what `LlmSplit.load`
    raises.
    """
    device = pick_device(encoder.device)
    dtype = getattr(torch, encoder.compute_dtype)  # set at loading: a cast would round rotary frequencies too
    tokenizer = _load_tokenizer(checkpoint_dir)
    shallow = LlmSplit.load(checkpoint_dir, encoder.num_shallow_layers, dtype=dtype).shallow.to(device)
    distinct = sorted(set(texts))
    token_ids = _token_ids(distinct, tokenizer=tokenizer, encoder=encoder)
    _require_known_ids(
        token_ids, tokenizer=tokenizer, num_token_ids=shallow.num_token_ids, checkpoint_dir=checkpoint_dir
    )
    embeddings = np.zeros((len(distinct), shallow.width), np.float16)
    done = 0
    for batch in token_budget_batches([len(ids) for ids in token_ids], tokens_per_batch=encoder.tokens_per_batch):
        input_ids, mask = _padded([token_ids[i] for i in batch])
        with torch.inference_mode():
            hidden = shallow(input_ids.to(device), mask.to(device))
            pooled = pool(hidden.float(), mask.to(device), pooling=encoder.pooling).half().cpu().numpy()
        if not np.isfinite(pooled).all():
            raise EmbeddingOverflowError(
                f"the text {distinct[batch[int(np.argmin(np.isfinite(pooled).all(1)))]]!r} has an embedding that float16 "
                "cannot hold: choose another encoder.num_shallow_layers or encoder.compute_dtype"
            )
        embeddings[batch] = pooled
        done += len(batch)
        if progress is not None:
            progress(done, len(distinct))
    row_of = {text: row for row, text in enumerate(distinct)}
    return embeddings[np.array([row_of[text] for text in texts], np.int64)]


def token_budget_batches(lengths: Sequence[int], *, tokens_per_batch: int) -> Iterator[list[int]]:
    """Yield lists of indices, shortest first, each of at most `tokens_per_batch` tokens with padding, at least one text.

    Equal lengths keep the order given.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > tokens_per_batch:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _load_tokenizer(checkpoint_dir: Path) -> Any:
    """Return the checkpoint's tokenizer. Where its files are missing `transformers` may make one that knows no word."""
    advice = "copy or download the checkpoint's tokenizer into it"
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint_dir, local_files_only=True)
    except Exception as error:  # each kind of file and tokenizer has its own
        raise TokenizerNotFoundError(
            f"no tokenizer can be read from {checkpoint_dir} ({cause(error)}): {advice}"
        ) from error
    known = getattr(tokenizer, "vocab_files_names", {})
    files = [known[kind] for kind in ("tokenizer_file", "vocab_file") if kind in known]
    if files and not any((checkpoint_dir / name).is_file() for name in files):
        raise TokenizerNotFoundError(f"{checkpoint_dir} has no tokenizer, no {' and no '.join(files)}: {advice}")
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise TokenizerNotFoundError(f"the tokenizer in {checkpoint_dir} knows no word: {advice}")
    return tokenizer


def _require_known_ids(token_ids: list[list[int]], *, tokenizer: Any, num_token_ids: int, checkpoint_dir: Path) -> None:
    """Raise where a text or a token of the vocabulary has no row in the token embedding.

    Tokens added to a vocabulary later, for padding say, may have none as long as no text has them.
    """
    added = tokenizer.get_added_vocab()
    largest = max((i for token, i in tokenizer.get_vocab().items() if token not in added), default=0)
    largest = max(largest, *(max(ids) for ids in token_ids), 0)
    if largest >= num_token_ids:
        raise TokenizerNotFoundError(
            f"the tokenizer in {checkpoint_dir} gives token ids up to {largest}, but the LLM's token embedding has "
            f"{num_token_ids} rows: copy or download the tokenizer that the LLM was trained with into the folder"
        )


def _token_ids(texts: Sequence[str], *, tokenizer: Any, encoder: EncoderConfig) -> list[list[int]]:
    found: list[list[int]] = []
    for start in range(0, len(texts), _TEXTS_PER_TOKENIZER_CALL):
        prompts = [encoder.prompt.replace("{text}", text) for text in texts[start : start + _TEXTS_PER_TOKENIZER_CALL]]
        found += tokenizer(prompts, truncation=True, max_length=encoder.max_tokens_per_behavior)["input_ids"]
    # A tokenizer without special tokens may find none in a text: one padding token is read then, never an empty mean.
    return [ids or [tokenizer.pad_token_id or 0] for ids in found]


def _padded(token_ids: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-pad to (B, T) ids and mask. The padding id is 0 for every tokenizer: it is masked, so it never counts."""
    input_ids = torch.zeros(len(token_ids), max(map(len, token_ids)), dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(token_ids):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = 1
    return input_ids, mask
