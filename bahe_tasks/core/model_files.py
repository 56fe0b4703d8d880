"""Model versions on disk: weights as safetensors, the spec as JSON. No pickle; the LLM's checkpoint is not needed to load.

Only the deep layers and the head are stored: the shallow layers belong to the encoder, not to the model version.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.llm_split import empty_deep_layers
from bahe_tasks.core.model_spec import ModelSpec

WEIGHTS_FILE = "model.safetensors"
SPEC_FILE = "model_spec.json"


class ModelFilesError(ValueError):
    """A folder that holds no model version, or whose weights do not fit its spec."""


def save_model(model: BaheCtrModel, spec: ModelSpec, folder: Path) -> None:
    """Write model.safetensors and model_spec.json into `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    (folder / SPEC_FILE).write_text(spec.to_json(), encoding="utf-8")


def load_model(folder: Path, *, device: torch.device | str = "cpu") -> tuple[BaheCtrModel, ModelSpec]:
    """Read what `save_model` wrote; the model is in evaluation mode. Raises `ModelFilesError`."""
    for name in (WEIGHTS_FILE, SPEC_FILE):
        if not (folder / name).is_file():
            raise ModelFilesError(f"{folder} holds no model version: {name} is missing; train the day again")
    spec = ModelSpec.from_json((folder / SPEC_FILE).read_text(encoding="utf-8"))
    model = BaheCtrModel(spec, empty_deep_layers(spec.llm_config, spec.num_shallow_layers))
    try:
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except RuntimeError as error:
        raise ModelFilesError(f"the weights in {folder} do not fit its {SPEC_FILE}: {error}") from error
    return model.to(device).eval(), spec
