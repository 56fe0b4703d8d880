"""Training and encoding with a decoder of the Qwen1.5-1.8B shape on one GPU; a machine with torch and transformers is enough.

    python -m benchmarks.gpu_cost [--json] [--small] [--layers-cut 12] [--users 64] [--tuning full] [--gradient-checkpointing]

Random weights, drawn on the device; 6 text features of 50 behaviors; every step with and without `training.compile_layers`.
Deep layers are float32 with bfloat16 autocast, shallow layers are bfloat16. A step is that of `core.train`: collating one batch ahead, forward, backward, clipping and fused AdamW,
with 4 impressions for each user and time (figures) and with one; unlike there, kernels need not be deterministic. Without a GPU only `--small` runs, at tiny size.

Figures, of compiled layers (with `--small` of eager ones): `samples_per_s` (target 1,000), `encode_texts_per_s`, `mfu` (0.4) and
`hours_50m` (14), the hours for 50 M samples. `warm_up_s` of a row is what its first steps took, compiling included.
mfu: operations of the deep layers (`kit.operations`), counted once for each user and item, over seconds of the whole step
times what a large bfloat16 matrix product reaches in the same run. LoRA does two thirds of the operations and is
counted so; what gradient checkpointing computes again is not counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle, islice, product
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from bahe_tasks.config import ModelConfig, TrainingConfig
from bahe_tasks.core.compiled_layers import compiled_layers
from bahe_tasks.core.ctr_model import BaheCtrModel, new_model
from bahe_tasks.core.llm_split import LlmSplit, ShallowLayers
from bahe_tasks.core.one_ahead import one_ahead
from bahe_tasks.core.optimizers import Optimizers
from bahe_tasks.core.pooling import pool
from bahe_tasks.core.ranks import ALONE
from bahe_tasks.core.train import recomputing
from bahe_tasks.core.training_rows import ImpressionRows, row_columns
from bahe_tasks.core.training_step import TrainingStep
from bahe_tasks.core.window_level import WindowLevel
from benchmarks.kit.cost_model import Shape, cost_rows, cost_spec, random_embeddings, random_llm
from benchmarks.kit.document import Document
from benchmarks.kit.operations import (
    deep_forward_operations,
    forward_operations,
    matmul_operations_per_s,
    training_operations,
)
from benchmarks.kit.peak_memory import PeakMemory
from benchmarks.kit.program import benchmark_arguments, wait_for

QWEN_1_8B: dict[str, Any] = {
    "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16,
    "num_key_value_heads": 16, "intermediate_size": 5504,
}  # fmt: skip
TINY = QWEN_1_8B | {
    "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
    "intermediate_size": 172,
}  # fmt: skip
SHAPE = Shape(num_features=6, behaviors_per_feature=50, tokens_per_behavior=8)
TRAINING = TrainingConfig(compute_dtype="bfloat16")
IMPRESSIONS_PER_USER = (1, 4)
NUM_TEXTS, NUM_BATCHES, WARM_UP = 20_000, 4, 3
SAMPLES_OF_A_WEEK = 50_000_000
"""The paper's week of records."""


@dataclass(frozen=True)
class Size:
    """What differs between a GPU and `--small`."""

    llm: dict[str, Any]
    layers_cut: int
    users: int
    steps: int
    texts_at_once: int
    matmul: int
    compiled: tuple[bool, ...] = (False, True)


def encode_texts_per_s(shallow: ShallowLayers, size: Size, device: torch.device) -> float:
    """Return how many texts of T tokens a second the shallow layers encode, from ids on the host to float16 there."""
    ids = torch.randint(shallow.num_token_ids, (size.texts_at_once, SHAPE.tokens_per_behavior))
    seconds = []
    for _ in range(3 + size.steps // 2):
        began = perf_counter()
        with torch.inference_mode():
            on_device = ids.to(device)
            mask = torch.ones_like(on_device)
            pool(shallow(on_device, mask).float(), mask, pooling="mean").half().cpu()
        seconds.append(perf_counter() - began)
    return size.texts_at_once / float(np.median(seconds[2:]))


def seconds_of_step(
    model: BaheCtrModel,
    optimizers: Optimizers,
    rows: ImpressionRows,
    embeddings: np.ndarray,
    *,
    steps: int,
    device: torch.device,
) -> dict[str, float]:
    """Return seconds of a whole step of `core.train`, of preparing a batch and of a step on one prepared before."""
    parts = np.split(np.arange(len(rows)), NUM_BATCHES)
    training = replace(TRAINING, batch_size=len(parts[0]))
    columns = row_columns(rows, model.spec)
    step = TrainingStep(model, optimizers, rows, embeddings, columns, training, seed=0, ranks=ALONE, device=device)

    def taken(count: int) -> None:
        for prepared in one_ahead(step.prepare_ahead, islice(cycle(parts), count)):
            step.take(prepared, number=0, level=WindowLevel())

    def seconds(call: Callable[[], object]) -> float:
        wait_for(device)
        began = perf_counter()
        call()
        wait_for(device)
        return perf_counter() - began

    warm_up_s = seconds(lambda: taken(WARM_UP))
    kept = step.prepare(parts[0])
    return {
        "warm_up_s": warm_up_s,
        "step_s": seconds(lambda: taken(steps)) / steps,
        "prepare_s": seconds(lambda: [step.prepare(part) for part in parts]) / NUM_BATCHES,
        "without_preparing_s": seconds(lambda: step.take(kept, number=0, level=WindowLevel())),
    }


def run(size: Size, *, tuning: str, pooling: str, recomputed: bool, device: torch.device) -> Document:
    """Measure encoding, then training."""
    document = Document("gpu_cost")
    peak = matmul_operations_per_s(device, torch.bfloat16, size=size.matmul)
    llm = random_llm(size.llm, device=device)
    model_settings = ModelConfig(deep_tuning=tuning, behavior_pooling=pooling)  # type: ignore[arg-type]
    spec = cost_spec(SHAPE, llm, num_shallow_layers=size.layers_cut, model=model_settings)
    split = LlmSplit.of(llm, size.layers_cut)
    for parameter in split.shallow.parameters():
        parameter.data = parameter.data.bfloat16()
    with PeakMemory(device) as encoding_memory:  # the deep layers are there besides, but no encode holds them
        texts_per_s = encode_texts_per_s(split.shallow, size, device)
    shallow_mb = sum(p.numel() * p.element_size() for p in split.shallow.parameters()) / 1e6
    deep = split.deep
    del split, llm
    of_title = forward_operations(deep.llm, sequences=1, length=1)
    model = new_model(spec, deep, seed=0).to(device).train()
    optimizers = Optimizers(model, TRAINING)
    of_user = deep_forward_operations(
        deep,
        sequences=SHAPE.num_features,
        behaviors=SHAPE.behaviors_per_feature,
        pooling=model_settings.behavior_pooling,
    )
    embeddings = random_embeddings(NUM_TEXTS, deep.width)
    for compiled, per_user in product(size.compiled, IMPRESSIONS_PER_USER):
        samples = size.users * per_user
        rows = cost_rows(SHAPE, users=size.users * NUM_BATCHES, impressions_per_user=per_user, num_texts=NUM_TEXTS)
        with (
            PeakMemory(device) as memory,
            recomputing(model, recomputed),
            compiled_layers(model, enabled=compiled),
        ):
            seconds = seconds_of_step(model, optimizers, rows, embeddings, steps=size.steps, device=device)
        passed = size.users * of_user + samples * of_title
        operations = training_operations(passed, lora=tuning == "lora")
        document.rows.append(
            {
                "compiled": compiled,
                "gradient_checkpointing": recomputed,
                "impressions_per_user": per_user,
                "samples_a_step": samples,
                "samples_per_s": samples / seconds["step_s"],
                "warm_up_s": seconds["warm_up_s"],
                **{f"{name}_ms": seconds[f"{name}_s"] * 1000 for name in ("step", "prepare", "without_preparing")},
                "tera_operations_a_step": operations / 1e12,
                "mfu": operations / seconds["step_s"] / peak,
                "mfu_without_preparing": operations / seconds["without_preparing_s"] / peak,
                "matmul_tera_operations_per_s": peak / 1e12,
                "peak_mb": memory.peak_mb,
                "peak_mb_encoding": shallow_mb + encoding_memory.grown_mb,
                "encode_texts_per_s": texts_per_s,
                "tuning": tuning,
                "pooling": pooling,
                "llm": "{hidden_size} x {num_hidden_layers}, cut at {cut}".format(**size.llm, cut=size.layers_cut),
                "behaviors": SHAPE.behaviors_per_feature,
                "features": SHAPE.num_features,
                "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            }
        )
    grouped = document.rows[-1]
    document.figures = {name: grouped[name] for name in ("samples_per_s", "encode_texts_per_s", "mfu")}
    document.figures["hours_50m"] = SAMPLES_OF_A_WEEK / grouped["samples_per_s"] / 3600
    document.figures["samples_per_s_ungrouped"] = document.rows[-2]["samples_per_s"]
    document.figures["samples_per_s_eager"] = document.rows[1]["samples_per_s"]
    document.figures["mfu_eager"] = document.rows[1]["mfu"]
    return document


def main() -> None:
    parser = benchmark_arguments(__doc__, small="tiny size, with or without a GPU, not compiled")
    parser.add_argument("--layers-cut", type=int, default=12, help="shallow layers of 24")
    parser.add_argument("--users", type=int, default=64, help="users a step, each with 1 or 4 impressions")
    parser.add_argument("--steps", type=int, default=12, help="steps timed")
    parser.add_argument("--tuning", choices=("full", "lora"), default="full", help="lora needs the package peft")
    parser.add_argument(
        "--pooling", default=ModelConfig().behavior_pooling, choices=("mean", "first", "last", "summary"), help="of all"
    )
    parser.add_argument("--gradient-checkpointing", action="store_true", help="compute hidden states twice")
    given = parser.parse_args()
    logging.set_verbosity_error()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not given.small:
        print("torch sees no GPU here; --small runs the same steps at tiny size on the CPU", file=sys.stderr)
        raise SystemExit(2)
    size = Size(QWEN_1_8B, given.layers_cut, given.users, given.steps, texts_at_once=8192, matmul=8192)
    if given.small:
        size = Size(TINY, layers_cut=2, users=4, steps=4, texts_at_once=256, matmul=512, compiled=(False,))
    document = run(
        size, tuning=given.tuning, pooling=given.pooling, recomputed=given.gradient_checkpointing, device=device
    )
    document.show(as_json=given.json)


if __name__ == "__main__":
    main()
