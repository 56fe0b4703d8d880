"""A device that runs out of memory."""

import logging
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.config import EncoderConfig
from bahe_tasks.core.llm_split import ShallowLayers
from bahe_tasks.core.text_encoder import TextEncoder
from bahe_tasks.core.tokens import NoRoomForTextError

CHECKPOINT = checkpoint_dir("all-MiniLM-L6-v2")
TEXTS = [f"{'word ' * (n % 7)}{n}" for n in range(60)]  # 3 to 10 tokens each, 402 in all


class SmallMemory(nn.Module):
    """Shallow layers on a device that holds `most` tokens, padding included."""

    def __init__(self, shallow: ShallowLayers, *, most: int) -> None:
        super().__init__()
        self.shallow, self.most, self.width = shallow, most, shallow.width
        self.tried: list[int] = []

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.tried.append(input_ids.numel())
        if input_ids.numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.shallow(input_ids, mask)


def _encoder(*, most: int) -> TextEncoder:
    encoder = TextEncoder(CHECKPOINT, EncoderConfig(num_shallow_layers=1), device=torch.device("cpu"))
    encoder.shallow = SmallMemory(encoder.shallow, most=most)  # type: ignore[assignment]
    return encoder


def test_a_device_out_of_memory_gets_smaller_batches_and_says_so_once(caplog):
    encoder = _encoder(most=40)
    with caplog.at_level(logging.WARNING):
        found = encoder.encode(TEXTS)
        tried = list(encoder.shallow.tried)
        encoder.encode(TEXTS)
    assert max(encoder.shallow.tried[len(tried) :]) <= 40  # what was learned holds for the texts that follow
    failed = [tokens for tokens in tried if tokens > 40]
    assert len(failed) > 1
    assert all(2 * smaller <= larger for larger, smaller in pairwise(failed))
    (record,) = [r for r in caplog.records if "out of memory" in r.getMessage()]
    assert "Set encoder.tokens_per_batch lower" in record.getMessage()
    np.testing.assert_allclose(found, _encoder(most=10_000).encode(TEXTS), atol=2e-3)


@pytest.mark.parametrize(
    "settings", [{"max_tokens_per_behavior": 2}, {"max_tokens_per_behavior": 6, "prompt": "what somebody did: {text}"}]
)
def test_settings_that_cut_off_every_text_are_refused_by_name(settings):
    with pytest.raises(NoRoomForTextError, match=r"encoder\.max_tokens_per_behavior .* leaves no token of a text"):
        TextEncoder(CHECKPOINT, EncoderConfig(**settings), device=torch.device("cpu"))
    settings["max_tokens_per_behavior"] += 1
    TextEncoder(CHECKPOINT, EncoderConfig(**settings), device=torch.device("cpu"))


def test_one_text_that_does_not_fit_the_device_is_an_error_that_says_what_to_do():
    with pytest.raises(torch.OutOfMemoryError) as caught:
        _encoder(most=40).encode(["word " * 200, "word"])
    assert "One text of 64 tokens" in caught.value.__notes__[0]
