"""Model versions on disk: weights as safetensors, the spec as JSON. No pickle; the LLM's checkpoint is not needed to load.

Only the deep layers and the head are stored: the shallow layers belong to the encoder, not to the model version. LoRA
adapters are stored beside the weights they adapt. The optimisers' state lies in a file of its own, where it is kept.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers.initialization import no_init_weights

from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.llm_split import empty_deep_layers
from bahe_tasks.core.lora import merge_lora
from bahe_tasks.core.model_spec import ModelSpec, check_numbers
from bahe_tasks.core.optimizers import OptimizerState

WEIGHTS_FILE = "model.safetensors"
SPEC_FILE = "model_spec.json"
OPTIMIZER_FILE = "optimizer.safetensors"


class ModelFilesError(ValueError):
    """A folder that holds no model version, or whose weights do not fit its spec."""


class DamagedModelError(ModelFilesError):
    """A file of a model version that was cut short or changed since it was written."""

    @classmethod
    def of(cls, file: Path, error: Exception) -> DamagedModelError:
        return cls(
            f"{file} is damaged ({error}): restore it from a copy of the home, or train the day whose version it is again: "
            "`bahe run-day DAY --force`"
        )


def save_model(
    model: BaheCtrModel, spec: ModelSpec, folder: Path, *, optimizer_state: OptimizerState | None = None
) -> None:
    """Write model.safetensors and model_spec.json into `folder`, which is made if need be, and the state if given."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    (folder / SPEC_FILE).write_text(spec.to_json(), encoding="utf-8")
    if optimizer_state is not None:
        save_file(optimizer_state, folder / OPTIMIZER_FILE)


def load_model(
    folder: Path, *, device: torch.device | str = "cpu", to_train: bool = False
) -> tuple[BaheCtrModel, ModelSpec]:
    """Read what `save_model` wrote; the model is in evaluation mode. Raises `ModelFilesError`, `ModelMismatchError`.

    LoRA adapters are merged into the weights unless the model is loaded to be trained on.
    """
    for name in (WEIGHTS_FILE, SPEC_FILE):
        if not (folder / name).is_file():
            raise ModelFilesError(f"{folder} holds no model version: {name} is missing; train the day again")
    try:
        spec = ModelSpec.from_json((folder / SPEC_FILE).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedModelError.of(folder / SPEC_FILE, error) from error
    check_numbers(spec)
    deep = empty_deep_layers(spec.llm_config, spec.num_shallow_layers, deep_attention=spec.model.deep_attention)
    with no_init_weights():  # all of them are read: millions of random numbers need not be drawn
        model = BaheCtrModel(spec, deep)
    try:
        model.load_state_dict(_tensors(folder / WEIGHTS_FILE), assign=True)
    except RuntimeError as error:
        raise ModelFilesError(f"the weights in {folder} do not fit its {SPEC_FILE}: {error}") from error
    if not to_train:
        merge_lora(model.deep)
    return model.to(device).eval(), spec


def load_optimizer_state(folder: Path) -> OptimizerState | None:
    """Read the optimisers' state of a version, `None` where it was not kept. Raises `DamagedModelError`."""
    file = folder / OPTIMIZER_FILE
    return _tensors(file) if file.is_file() else None


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file. Raises `DamagedModelError`."""
    try:
        return load_file(file)
    except SafetensorError as error:
        raise DamagedModelError.of(file, error) from error
