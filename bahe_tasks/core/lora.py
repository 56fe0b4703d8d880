"""LoRA of the deep layers with peft: low-rank adapters are trained, the LLM's own weights are not (Hu et al., 2021).

Adapted are linear maps that are modules of their own; the experts of a mixture, kept as one tensor, are not.

The adapters stay beside the weights from day to day, so that they go on being trained; `merge_lora` folds them in for
scoring. peft is imported in this path alone.
"""

from __future__ import annotations

from torch import nn
from transformers.pytorch_utils import Conv1D

from bahe_tasks.core.llm_split import DeepLayers
from bahe_tasks.wrong_use import WrongUseError


class NothingToAdaptError(WrongUseError):
    """Deep layers without a linear map that LoRA could adapt."""


def add_lora(deep: DeepLayers, *, rank: int, alpha: float, dropout: float) -> None:
    """Put adapters of zero output beside every linear module of the deep layers. Raises `NothingToAdaptError`."""
    from peft import LoraConfig, inject_adapter_in_model

    linear_maps = [name for name, module in deep.llm.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    if not linear_maps:
        raise NothingToAdaptError(
            "model.deep_tuning is lora, but the deep layers hold no linear map: "
            "lower encoder.num_shallow_layers, or set model.deep_tuning to frozen"
        )
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=linear_maps)  # type: ignore[arg-type]
    inject_adapter_in_model(config, deep.llm)


def set_lora_dropout(deep: DeepLayers, dropout: float) -> None:
    """Replace the dropout before the adapters, if there are any."""
    for module in deep.llm.modules():
        adapters = getattr(module, "lora_dropout", None)
        if isinstance(adapters, nn.ModuleDict):
            for name in adapters:
                adapters[name] = nn.Dropout(dropout) if dropout else nn.Identity()


def has_lora(deep: DeepLayers) -> bool:
    """Return whether adapters stand beside the weights."""
    return any(is_adapter(name) for name, _ in deep.named_parameters())


def is_adapter(parameter_name: str) -> bool:
    """Return whether a parameter of the deep layers belongs to an adapter."""
    return ".lora_" in parameter_name


def merge_lora(deep: DeepLayers) -> None:
    """Add each adapter's product to the weights it stands beside and take the adapter away: the outputs stay."""
    for name, module in list(deep.llm.named_modules()):
        if hasattr(module, "get_base_layer") and hasattr(module, "merge"):
            module.merge()
            deep.llm.set_submodule(name, module.get_base_layer())
