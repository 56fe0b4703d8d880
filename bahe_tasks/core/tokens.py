"""Token ids of texts, by the checkpoint's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from bahe_tasks.config import EncoderConfig
from bahe_tasks.core.llm_check import cause
from bahe_tasks.wrong_use import WrongUseError


class TokenizerNotFoundError(ValueError):
    """A checkpoint's tokenizer is missing, broken, or that of another LLM."""


_PROBES = 16
"""How many of a tokenizer's own words are tried as texts."""


class NoRoomForTextError(WrongUseError):
    """Settings that cut off every text: all would have one embedding."""


class TextTokenizer:
    """The tokenizer of a checkpoint, with the prompt and the cut of `encoder`. Raises `TokenizerNotFoundError`, `NoRoomForTextError`.

    `num_token_ids` is the number of rows of the LLM's token embedding, which ids must be below.
    """

    def __init__(self, checkpoint_dir: Path, encoder: EncoderConfig, *, num_token_ids: int) -> None:
        self.checkpoint_dir = checkpoint_dir
        self.encoder = encoder
        self.num_token_ids = num_token_ids
        self.tokenizer = _load(checkpoint_dir)
        # Tokens added to a vocabulary later, for padding say, may have no row as long as no text has them.
        added = self.tokenizer.get_added_vocab()
        own = sorted(i for token, i in self.tokenizer.get_vocab().items() if token not in added)
        self._require_rows(max(own, default=0))
        nothing, *probes = self(["", *map(self.tokenizer.decode, own[:: max(len(own) // _PROBES, 1)])])
        if all(ids == nothing for ids in probes):
            raise NoRoomForTextError(
                f"encoder.max_tokens_per_behavior {encoder.max_tokens_per_behavior} leaves no token of a text with "
                f"encoder.prompt {encoder.prompt!r}: all texts would be one; raise the former or shorten the latter"
            )

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, 1 to T of them. Raises `TokenizerNotFoundError` where one has no row."""
        found: list[list[int]] = self.tokenizer(
            [self.encoder.prompt.replace("{text}", text) for text in texts],
            truncation=True,
            max_length=self.encoder.max_tokens_per_behavior,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        self._require_rows(max((max(ids) for ids in found if ids), default=0))
        # A tokenizer without special tokens may find none in a text: one padding token is read then, never an empty mean.
        return [ids or [self.tokenizer.pad_token_id or 0] for ids in found]

    def _require_rows(self, largest: int) -> None:
        if largest >= self.num_token_ids:
            raise TokenizerNotFoundError(
                f"the tokenizer in {self.checkpoint_dir} gives token ids up to {largest}, but the LLM's token embedding "
                f"has {self.num_token_ids} rows: copy or download the tokenizer that the LLM was trained with into the "
                "folder"
            )


def padded(token_ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-pad to (B, T) ids and mask. The padding id is 0 for every tokenizer: it is masked, so it never counts."""
    lengths = np.fromiter(map(len, token_ids), np.int64, len(token_ids))
    present = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.zeros(present.shape, np.int64)
    input_ids[present] = np.concatenate(token_ids)
    return torch.from_numpy(input_ids), torch.from_numpy(present.astype(np.int64))


def _load(checkpoint_dir: Path) -> Any:
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
