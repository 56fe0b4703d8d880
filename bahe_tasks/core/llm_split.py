"""The LLM cut in two: frozen shallow layers over tokens, trained deep layers over behavior embeddings (paper, section 2).

Invariant: deep(shallow(x)) without pooling equals the last hidden state of the whole LLM, for every number of shallow
layers from 0 to all, with padding on either side.

Unusual: there is no code per architecture. The parts are found by structure (the one list of `num_hidden_layers`
layers, the child that holds the token embedding, the final norm), both halves run the checkpoint's own forward
function, and the invariant is checked on a few tokens whenever weights are cut, so that an architecture whose forward
function does more than that is refused by name instead of giving wrong numbers.

The deep half gets its input as `inputs_embeds`; a module that would add positions or a norm to it again is replaced by
a pass-through. So an encoder such as BERT knows no order of behaviors (recency embeddings supply it), while a decoder
with rotary positions does.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.models.auto.configuration_auto import CONFIG_MAPPING


class UnsplittableArchitectureError(ValueError):
    """An architecture that cannot be cut into shallow and deep layers."""


class LayerCountError(ValueError):
    """More shallow layers were asked for than the LLM has layers."""


class ShallowLayers(nn.Module):
    """Token embedding and the lower layers of an LLM, frozen."""

    def __init__(self, llm: nn.Module) -> None:
        super().__init__()
        self.llm = llm.requires_grad_(False).eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(B, T) ids and mask (1 = token) → (B, T, H), before any final norm."""
        return self.llm(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


class DeepLayers(nn.Module):
    """The upper layers of an LLM with its final norm."""

    def __init__(self, llm: nn.Module) -> None:
        super().__init__()
        self.llm = llm

    @property
    def width(self) -> int:
        """H."""
        return int(self.llm.config.hidden_size)  # type: ignore[union-attr, arg-type]

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, S, H) and mask (B, S) (1 = present) → (B, S, H)."""
        return self.llm(inputs_embeds=hidden, attention_mask=mask).last_hidden_state


@dataclass(frozen=True)
class LlmSplit:
    """Both halves, and the configuration of the whole LLM (JSON) that the deep half can be rebuilt from."""

    shallow: ShallowLayers
    deep: DeepLayers
    llm_config: dict[str, Any]

    @classmethod
    def load(cls, checkpoint_dir: Path, num_shallow_layers: int, *, dtype: torch.dtype = torch.float32) -> LlmSplit:
        """Read a `transformers` checkpoint from a local folder and cut it; `dtype` is that of its weights."""
        llm = AutoModel.from_pretrained(checkpoint_dir, dtype=dtype, local_files_only=True)
        return cls.of(llm, num_shallow_layers)

    @classmethod
    def of(cls, llm: PreTrainedModel, num_shallow_layers: int) -> LlmSplit:
        """Cut a base model (without language-model head). Its modules move into the halves: do not use it afterwards.

        Raises `LayerCountError`, and `UnsplittableArchitectureError` where the invariant does not hold.
        """
        llm = llm.eval()
        llm_config = json.loads(llm.config.to_json_string())
        name = type(llm).__name__
        _layers_path(llm)
        input_ids = torch.arange(10).reshape(2, 5) % llm.config.get_text_config().vocab_size
        mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
        try:
            with torch.inference_mode():
                whole = llm(input_ids=input_ids, attention_mask=mask).last_hidden_state
            shallow, deep = _cut(llm, num_shallow_layers)
            with torch.inference_mode():
                halves = deep(shallow(input_ids, mask), mask)
        except (AttributeError, TypeError, RuntimeError) as error:
            raise UnsplittableArchitectureError(
                f"{name} cannot be cut into shallow and deep layers: {error}"
            ) from error
        if not torch.allclose(whole[mask.bool()], halves[mask.bool()], rtol=1e-3, atol=1e-4):
            raise UnsplittableArchitectureError(
                f"{name} cannot be cut: its two halves do not give what the whole gives; choose another checkpoint"
            )
        return cls(shallow, deep, llm_config)


def empty_deep_layers(llm_config: dict[str, Any], num_shallow_layers: int) -> DeepLayers:
    """Build the deep half from configuration alone, its weights left unset, to be filled from a state dict."""
    config = CONFIG_MAPPING[llm_config["model_type"]].from_dict(llm_config)
    with no_init_weights():
        llm = AutoModel.from_config(config, dtype=torch.float32)
    return _cut(llm, num_shallow_layers)[1]


class _PassThrough(nn.Module):
    """Stands where an LLM turns tokens into vectors, when it is given vectors."""

    def forward(self, inputs_embeds: torch.Tensor, **_of_tokens: Any) -> torch.Tensor:
        return inputs_embeds


def _cut(llm: PreTrainedModel, num_shallow_layers: int) -> tuple[ShallowLayers, DeepLayers]:
    total = llm.config.num_hidden_layers
    if not 0 <= num_shallow_layers <= total:
        raise LayerCountError(
            f"encoder.num_shallow_layers is {num_shallow_layers}, but {type(llm).__name__} has {total} layers: "
            f"set it between 0 and {total}"
        )
    layers_path = _layers_path(llm)
    token_child = _token_child(llm)
    layers = llm.get_submodule(layers_path)
    tokens = getattr(llm, token_child)
    llm.set_submodule(layers_path, nn.ModuleList())
    setattr(llm, token_child, _PassThrough())
    if hasattr(llm, "pooler"):
        llm.pooler = None  # type: ignore[assignment]  # a sentence head, no part of the last hidden state
    shallow = copy.deepcopy(llm)  # what is left by now is small: final norm, rotary frequencies

    setattr(shallow, token_child, tokens)
    for child, module in list(shallow.named_children()):
        if type(module).__name__.endswith("Norm"):
            setattr(shallow, child, nn.Identity())
    for half, part in ((shallow, slice(0, num_shallow_layers)), (llm, slice(num_shallow_layers, total))):
        half.set_submodule(layers_path, layers[part])  # type: ignore[index]
        half.config = _config_of_part(half.config, part)
    return ShallowLayers(shallow), DeepLayers(llm)


def _layers_path(llm: PreTrainedModel) -> str:
    """Return the dotted path of the one list that holds the LLM's layers."""
    total = llm.config.num_hidden_layers
    paths = [path for path, module in llm.named_modules() if isinstance(module, nn.ModuleList) and len(module) == total]
    if len(paths) != 1 or llm.config.is_encoder_decoder:
        raise UnsplittableArchitectureError(
            f"{type(llm).__name__} cannot be cut into shallow and deep layers: "
            f"it has {len(paths)} lists of {total} layers, where one stack is needed; choose another checkpoint"
        )
    return paths[0]


def _token_child(llm: PreTrainedModel) -> str:
    """Return the name of the child that turns token ids into vectors (for BERT with positions and norm)."""
    embedding = llm.get_input_embeddings()
    for name, child in llm.named_children():
        if any(module is embedding for module in child.modules()):
            return name
    raise UnsplittableArchitectureError(f"{type(llm).__name__} cannot be cut: no child of it holds its token embedding")


def _config_of_part(config: PreTrainedConfig, part: slice) -> PreTrainedConfig:
    config = copy.deepcopy(config)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[part]
    config.num_hidden_layers = part.stop - part.start
    config.use_cache = False  # a sliced layer keeps its old index, with which a cache fails
    return config
