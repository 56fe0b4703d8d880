"""The LLM cut in two: frozen shallow layers over tokens, trained deep layers over behavior embeddings (paper, section 2).

Invariant: deep(shallow(x)) without pooling equals the last hidden state of the whole LLM, for every number of shallow
layers from 0 to all, with padding on either side, as long as the deep layers attend as they were trained to.

Unusual: there is no code per architecture. The parts are found by running the LLM (`llm_parts`), both halves run the
checkpoint's own forward function, and the invariant is checked on a few tokens whenever weights are cut, so that an
architecture whose forward function does more than that is refused by name instead of giving wrong numbers.

The deep half gets its input as `inputs_embeds`; modules that would add positions or a norm to it again add nothing
there. So an encoder such as BERT knows no order of behaviors (recency embeddings supply it), while one with rotary
positions, as most decoders have, does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

from bahe_tasks.core.deep_attention import DeepAttention, attends_as_asked, four_dimensional_mask
from bahe_tasks.core.last_layer import at_position, modules_to_narrow, narrowed
from bahe_tasks.core.llm_check import agree, cause, sample_tokens, small_windows
from bahe_tasks.core.llm_cut import LayerCountError, cut
from bahe_tasks.core.llm_parts import UnsplittableArchitectureError, layers_path, text_model
from bahe_tasks.core.one_query import OneQueryPlan, attending_once, one_query_of

_at_work: dict[nn.Module, object] = {}
"""LLMs whose modules do, for now, what `DeepLayers.at` has them do → who has them do it."""


class CheckpointWeightsError(ValueError):
    """A checkpoint's weights are missing, broken, or those of another architecture."""


class ShallowLayers(nn.Module):
    """Token embedding and the lower layers of an LLM, frozen."""

    def __init__(self, llm: PreTrainedModel) -> None:
        super().__init__()
        self.llm = llm.requires_grad_(False).eval()

    @property
    def width(self) -> int:
        """H."""
        return int(self.llm.config.hidden_size)

    @property
    def num_token_ids(self) -> int:
        """Rows of the token embedding: ids are below it."""
        return int(self.llm.get_input_embeddings().weight.shape[0])

    def train(self, mode: bool = True) -> ShallowLayers:
        """Stay in evaluation mode: frozen layers drop nothing out."""
        return super().train(False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(B, T) ids and mask (1 = token) → (B, T, H), before any final norm."""
        return self.llm(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


class DeepLayers(nn.Module):
    """The upper layers of an LLM with its final norm.

    `input_scale` is what the LLM's forward function multiplies its input with by itself.
    """

    def __init__(
        self, llm: PreTrainedModel, attention: DeepAttention = "as_trained", *, input_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.llm = llm
        self.attention = attention
        self.input_scale = input_scale
        self._narrowable: tuple[str, ...] | None = None
        self._one_query: OneQueryPlan | None = None
        self._one_query_sought = False
        self._position: torch.Tensor | None = None

    @property
    def width(self) -> int:
        """H."""
        return int(self.llm.config.hidden_size)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, S, H) and mask (B, S) (1 = present) → (B, S, H)."""
        if self.attention != "as_trained":
            implementation = self.llm.config._attn_implementation
            mask = four_dimensional_mask(mask, self.attention, implementation=implementation, dtype=hidden.dtype)
        if self.input_scale != 1.0:
            hidden = hidden / self.input_scale
        return self.llm(inputs_embeds=hidden, attention_mask=mask).last_hidden_state

    def at(self, position: torch.Tensor, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return of the outputs those at `position` (B,) int64, (B, H); of the last layer little else is computed."""
        with self._only_at(position):
            return at_position(self(hidden, mask), position)

    @property
    def layers(self) -> nn.ModuleList:
        """The layers themselves, lowest first."""
        if not self.llm.config.num_hidden_layers:
            return nn.ModuleList()
        return cast(nn.ModuleList, self.llm.get_submodule(layers_path(self.llm)))

    @property
    def narrowable(self) -> tuple[str, ...]:
        """Paths of the modules of the last layer and behind it that `at` computes at one position; weights must be in place."""
        if self._narrowable is None:
            self._narrowable = modules_to_narrow(self.llm, self)
        return self._narrowable

    @property
    def one_query(self) -> OneQueryPlan | None:
        """What the attention of the last layer leaves out in `at`, where something is narrowable; weights must be in place."""
        if not self.narrowable:
            return None
        if not self._one_query_sought:
            self._one_query, self._one_query_sought = one_query_of(self.llm, self, self.narrowable), True
        return self._one_query

    def contexts_of_checkpoint(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return what a layer runs in and what it is computed again in, for `torch.utils.checkpoint`."""
        return nullcontext(), nullcontext() if self._position is None else self._only_at(self._position)

    @contextmanager
    def _only_at(self, position: torch.Tensor) -> Iterator[None]:
        claim = object()
        if _at_work.setdefault(self.llm, claim) is not claim:
            raise RuntimeError("these deep layers are at work already: two threads cannot share them, give each a copy")
        try:
            behind, plan = [self.llm.get_submodule(path) for path in self.narrowable], self.one_query
            with narrowed(behind, position), attending_once(self.llm, plan, position):
                self._position = position
                yield
        finally:
            self._position = None
            del _at_work[self.llm]


@dataclass(frozen=True)
class LlmSplit:
    """Both halves, and the configuration of the whole LLM (JSON) that the deep half can be rebuilt from."""

    shallow: ShallowLayers
    deep: DeepLayers
    llm_config: dict[str, Any]

    @classmethod
    @torch.inference_mode(False)  # parts are found by gradients, and the deep layers are to be trained
    def load(
        cls,
        checkpoint_dir: Path,
        num_shallow_layers: int,
        *,
        dtype: torch.dtype = torch.float32,
        deep_attention: DeepAttention = "as_trained",
    ) -> LlmSplit:
        """Read a `transformers` checkpoint from a local folder and cut it; `dtype` is that of its weights.

        Raises `CheckpointWeightsError`, and what `of` raises.
        """
        try:
            config = AutoConfig.from_pretrained(checkpoint_dir, local_files_only=True)
        except (OSError, ValueError) as error:
            raise UnsplittableArchitectureError(
                f"{checkpoint_dir}/config.json is of no architecture that the installed transformers knows "
                f"({cause(error)}): choose another checkpoint, or copy or download this one again"
            ) from error
        try:
            with _without_progress_bar():
                llm, report = AutoModel.from_pretrained(
                    checkpoint_dir, config=config, dtype=dtype, local_files_only=True, output_loading_info=True
                )
        except Exception as error:  # each format of weights has its own
            raise CheckpointWeightsError(
                f"the weights in {checkpoint_dir} cannot be read ({cause(error)}): copy or download the checkpoint again"
            ) from error
        absent = {id(p): name for name, p in llm.named_parameters() if name in report["missing_keys"]}
        split = cls.of(llm, num_shallow_layers, deep_attention=deep_attention)
        held = [absent[id(p)] for half in (split.shallow, split.deep) for p in half.parameters() if id(p) in absent]
        if held:
            raise CheckpointWeightsError(
                f"the weights in {checkpoint_dir} lack {len(held)} that {type(llm).__name__} has, {held[0]} among them: "
                "they are not complete, or config.json is of another architecture; copy or download the checkpoint again"
            )
        return split

    @classmethod
    @torch.inference_mode(False)
    def of(
        cls, llm: PreTrainedModel, num_shallow_layers: int, *, deep_attention: DeepAttention = "as_trained"
    ) -> LlmSplit:
        """Cut a base model (without language-model head). Its modules move into the halves: do not use it afterwards.

        Raises `LayerCountError`, and `UnsplittableArchitectureError` where the invariant does not hold or the deep
        layers cannot attend as asked.
        """
        name = type(llm).__name__
        try:
            llm = text_model(llm).eval()
            llm_config = json.loads(llm.config.to_json_string())
            _require_one_base_model(llm, llm_config)
            llm.config.use_cache = False
            input_ids, mask = sample_tokens(llm)
            with torch.no_grad(), small_windows(llm):
                whole = llm(input_ids=input_ids, attention_mask=mask).last_hidden_state
            shallow_llm, deep_llm, scale = cut(llm, num_shallow_layers)
            shallow, deep = ShallowLayers(shallow_llm), DeepLayers(deep_llm, input_scale=scale)
            with torch.no_grad(), small_windows(shallow_llm, deep_llm):
                halves = deep(shallow(input_ids, mask), mask)
        except (LayerCountError, UnsplittableArchitectureError):
            raise
        except Exception as error:  # whatever a forward function of others raises
            raise UnsplittableArchitectureError(
                f"{name} cannot be cut after {num_shallow_layers} layers ({cause(error)}); "
                "choose another encoder.num_shallow_layers or another checkpoint"
            ) from error
        if not agree(whole[mask.bool()], halves[mask.bool()]):
            raise UnsplittableArchitectureError(
                f"{name} cannot be cut: its two halves do not give what the whole gives; choose another checkpoint"
            )
        if halves.shape[2] != deep.width:
            raise UnsplittableArchitectureError(
                f"{name} cannot be cut: it gives vectors of width {halves.shape[2]} from layers of width {deep.width}, "
                "where one width is needed; choose another checkpoint"
            )
        if deep_attention != "as_trained":
            deep.attention = deep_attention
            _require_attention(deep, name)
        return cls(shallow, deep, llm_config)


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Reading weights takes a moment, and its bar would stand between the lines of the days."""
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


@torch.inference_mode(False)
def empty_deep_layers(
    llm_config: dict[str, Any], num_shallow_layers: int, *, deep_attention: DeepAttention = "as_trained"
) -> DeepLayers:
    """Build the deep half from configuration alone, its weights left unset, to be filled from a state dict."""
    config = CONFIG_MAPPING[llm_config["model_type"]].from_dict(llm_config)
    config.use_cache = False
    with no_init_weights():
        llm = AutoModel.from_config(config, dtype=torch.float32)
    _, deep_llm, scale = cut(llm.eval(), num_shallow_layers)
    return DeepLayers(deep_llm, deep_attention, input_scale=scale)


def _require_one_base_model(llm: PreTrainedModel, llm_config: dict[str, Any]) -> None:
    """Raise unless there is one stack of layers, which `empty_deep_layers` would build again from the configuration."""
    layers_path(llm)
    built: Any = MODEL_MAPPING[type(CONFIG_MAPPING[llm_config["model_type"]].from_dict(llm_config))]
    if type(llm) is not built:
        raise UnsplittableArchitectureError(
            f"{type(llm).__name__} cannot be cut: the base model of its configuration is {built.__name__}, give that"
        )


def _require_attention(deep: DeepLayers, name: str) -> None:
    if not deep.llm.config.num_hidden_layers:
        return
    asked = deep.attention
    first = next(deep.parameters())
    try:
        with small_windows(deep.llm):
            obeys = attends_as_asked(deep, asked, width=deep.width, dtype=first.dtype, device=first.device)
        reason = "they attend otherwise all the same"
    except Exception as error:  # whatever a forward function of others raises
        obeys, reason = False, cause(error)
    if not obeys:
        raise UnsplittableArchitectureError(
            f"the deep layers of {name} cannot be made {asked} ({reason}): choose as_trained or another checkpoint"
        )
