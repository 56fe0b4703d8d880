"""Tiny random base models of many LLM families, for tests and for measuring what a family costs. No download.

Every family has the width, layers and vocabulary below unless it says otherwise. Windows are of three tokens, so that a
short sequence reaches beyond them, and layers of different kinds stand beside each other where a family mixes them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

WIDTH = 32
NUM_LAYERS = 3
VOCABULARY = 60
_WINDOW = 3

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED: dict[str, Any] = {"num_key_value_heads": 2}
_EXPERTS: dict[str, Any] = {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_MIXED: dict[str, Any] = {
    **_GROUPED,
    "head_dim": 8,
    "sliding_window": _WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
_LINEAR: dict[str, Any] = {
    "head_dim": 16,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_GPT: dict[str, Any] = {"n_embd": WIDTH, "n_layer": NUM_LAYERS, "n_head": 4, "n_positions": 64}

_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    # encoders
    "bert": ("bert", {}),
    "roberta": ("roberta", {}),
    "xlm-roberta": ("xlm-roberta", {}),
    "camembert": ("camembert", {}),
    "distilbert": ("distilbert", {"dim": WIDTH, "n_layers": NUM_LAYERS, "n_heads": 4, "hidden_dim": 64}),
    "electra": ("electra", {"embedding_size": 16}),
    "mpnet": ("mpnet", {}),
    "deberta-v3": ("deberta-v2", {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]}),
    "mobilebert": ("mobilebert", {"embedding_size": 16, "intra_bottleneck_size": 16}),
    "rembert": ("rembert", {"input_embedding_size": 16}),
    "modernbert": ("modernbert", {"local_attention": 2 * _WINDOW}),
    "eurobert": ("eurobert", _GROUPED),
    "nomic-bert": ("nomic_bert", {}),
    "embedding-gemma": ("gemma3_text", {**_MIXED, "use_bidirectional_attention": True}),
    # decoders
    "llama": ("llama", _GROUPED),
    "qwen2": ("qwen2", {**_GROUPED, "use_sliding_window": True, "sliding_window": _WINDOW, "max_window_layers": 1}),
    "qwen3": ("qwen3", {**_GROUPED, "head_dim": 16}),
    "qwen3-moe": ("qwen3_moe", _EXPERTS),
    "mistral": ("mistral", {**_GROUPED, "sliding_window": _WINDOW}),
    "mixtral": ("mixtral", {**_GROUPED, "num_local_experts": 3}),
    "gemma": ("gemma", {**_GROUPED, "head_dim": 8}),
    "gemma2": ("gemma2", _MIXED),
    "gemma3": ("gemma3_text", _MIXED),
    "gpt-neox": ("gpt_neox", {}),
    "gpt2": ("gpt2", _GPT),
    "gpt-neo": ("gpt_neo", {"num_layers": NUM_LAYERS, "num_heads": 4, "attention_types": [[["global", "local", "global"], 1]], "window_size": _WINDOW}),
    "gptj": ("gptj", {**_GPT, "rotary_dim": 4}),
    "codegen": ("codegen", {**_GPT, "rotary_dim": 4}),
    "opt": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": WIDTH}),
    "bloom": ("bloom", {"n_layer": NUM_LAYERS, "n_head": 4}),
    "falcon": ("falcon", {}),
    "phi": ("phi", {}),
    "phi3": ("phi3", _GROUPED),
    "olmo2": ("olmo2", _GROUPED),
    "granite": ("granite", {**_GROUPED, "embedding_multiplier": 12.0}),
    "stablelm": ("stablelm", _GROUPED),
    "starcoder2": ("starcoder2", {**_GROUPED, "sliding_window": _WINDOW}),
    "cohere": ("cohere", _GROUPED),
    "smollm3": ("smollm3", _GROUPED),
    "nemotron": ("nemotron", _GROUPED),
    "glm": ("glm", {**_GROUPED, "head_dim": 8}),
    "qwen3.5": ("qwen3_5_text", {**_GROUPED, **_LINEAR}),
    "gpt-oss": ("gpt_oss", {**_MIXED, "num_local_experts": 4}),
}  # fmt: skip


def tiny_llm(model_type: str, *, seed: int = 0, noise: float = 0.2, **settings: Any) -> PreTrainedModel:
    """Build the base model that `transformers` knows as `model_type`, in evaluation mode.

    Every weight is moved away from its first value by `noise` deviations: norms and biases at theirs hide mistakes.
    """
    config = CONFIG_MAPPING[model_type](**{**_COMMON, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        llm = AutoModel.from_config(config).eval()
        with torch.no_grad():
            for parameter in llm.parameters():
                parameter.add_(noise * torch.randn_like(parameter))
    return llm


TINY_LLMS: dict[str, Callable[..., PreTrainedModel]] = {
    name: partial(tiny_llm, model_type, **settings) for name, (model_type, settings) in _FAMILIES.items()
}
"""Name of a family → builder of a tiny random base model of it; takes the arguments of `tiny_llm` by name."""
