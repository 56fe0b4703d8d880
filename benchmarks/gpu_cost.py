"""Training and encoding with a decoder of the Qwen1.5-1.8B shape on one GPU; a machine with torch and transformers is enough.

    python -m benchmarks.gpu_cost [--json] [--small] [--layers-cut 12] [--users 64] [--tuning full]

Random weights, drawn on the device; 6 text features of 50 behaviors. Deep layers are float32 with bfloat16 autocast, their
AdamW is fused; shallow layers are bfloat16. A step is collating, forward, backward, clipping and optimiser, with 4
impressions for each user and time (figures) and with one. Without a GPU only `--small` runs, at tiny size.

Figures: `samples_per_s` (target 1,000), `encode_texts_per_s`, `mfu` (0.4) and `hours_50m` (14), the hours for 50 M samples.
mfu: operations of the deep layers (`kit.operations`), counted once for each user and item, over seconds of the whole step
times what a large bfloat16 matrix product reaches in the same run. LoRA does two thirds of the operations and is counted so.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers.utils import logging

from bahe_tasks.config import ModelConfig, TrainingConfig
from bahe_tasks.core.batches import Batch, ImpressionRows, RowColumns, collate, row_columns
from bahe_tasks.core.ctr_model import BaheCtrModel, new_model
from bahe_tasks.core.llm_split import LlmSplit, ShallowLayers
from bahe_tasks.core.lora import is_adapter
from bahe_tasks.core.pooling import pool
from bahe_tasks.core.row_wise_adagrad import RowWiseAdagrad
from benchmarks.kit.cost_model import Shape, cost_rows, cost_spec, random_embeddings, random_llm
from benchmarks.kit.document import Document
from benchmarks.kit.operations import forward_operations, matmul_operations_per_s, training_operations
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
TRAINING = TrainingConfig()
IMPRESSIONS_PER_USER = (1, 4)
NUM_TEXTS, NUM_BATCHES, WARM_UP = 20_000, 4, 3
SAMPLES_OF_A_WEEK = 50_000_000
"""The paper's week of records."""
Labelled = tuple[Batch, torch.Tensor]
"""A batch and its labels (B, 1)."""


@dataclass(frozen=True)
class Size:
    """What differs between a GPU and `--small`."""

    llm: dict[str, Any]
    layers_cut: int
    users: int
    steps: int
    texts_at_once: int
    matmul: int


class Trainer:
    """A model in training, and the steps of it that are timed."""

    def __init__(self, model: BaheCtrModel, *, tuning: str, device: torch.device) -> None:
        for name, parameter in model.deep.named_parameters():
            parameter.requires_grad_(tuning == "full" or is_adapter(name))
        tables = list(model.columns.tables.parameters())
        apart = {id(p) for p in tables}
        self._dense = [p for p in model.parameters() if p.requires_grad and id(p) not in apart]
        fused = device.type == "cuda"
        self._optimizers = [
            torch.optim.AdamW(self._dense, fused=fused),
            RowWiseAdagrad(tables, lr=TRAINING.hashed_learning_rate),
        ]
        self.model, self.device = model, device

    def batch(self, rows: ImpressionRows, index: np.ndarray, columns: RowColumns, embeddings: np.ndarray) -> Labelled:
        features = self.model.features
        batch = collate(rows, embeddings, index, columns=columns, features=features, device=self.device)
        return batch, torch.from_numpy(rows.labels[index]).to(self.device).unsqueeze(1)

    def step(self, batch: Batch, labels: torch.Tensor) -> None:
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.model(batch)
        loss = binary_cross_entropy_with_logits(logits.float(), labels)
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._dense, TRAINING.max_gradient_norm)
        for optimizer in self._optimizers:
            optimizer.step()
        loss.item()  # `core.train` looks at every loss


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


def seconds_of_step(trainer: Trainer, rows: ImpressionRows, embeddings: np.ndarray, *, steps: int) -> dict[str, float]:
    """Return seconds of a whole step, and of collating and of the rest where they are timed apart."""
    columns = row_columns(rows, trainer.model.spec)
    parts = np.split(np.arange(len(rows)), NUM_BATCHES)
    forever = itertools.cycle(parts)
    for _ in range(WARM_UP):
        trainer.step(*trainer.batch(rows, next(forever), columns, embeddings))

    def per_call(calls: int, call: Any) -> float:
        wait_for(trainer.device)
        began = perf_counter()
        for _ in range(calls):
            call()
        wait_for(trainer.device)
        return (perf_counter() - began) / calls

    kept = trainer.batch(rows, parts[0], columns, embeddings)
    return {
        "step_s": per_call(steps, lambda: trainer.step(*trainer.batch(rows, next(forever), columns, embeddings))),
        "collate_s": per_call(NUM_BATCHES, lambda: trainer.batch(rows, next(forever), columns, embeddings)),
        "without_collate_s": per_call(max(steps // 2, 1), lambda: trainer.step(*kept)),
    }


def run(size: Size, *, tuning: str, device: torch.device) -> Document:
    """Measure encoding, then training."""
    document = Document("gpu_cost")
    peak = matmul_operations_per_s(device, torch.bfloat16, size=size.matmul)
    with PeakMemory(device) as encoding_memory:
        llm = random_llm(size.llm, device=device)
        model_settings = ModelConfig(deep_tuning=tuning)  # type: ignore[arg-type]
        spec = cost_spec(SHAPE, llm, num_shallow_layers=size.layers_cut, model=model_settings)
        split = LlmSplit.of(llm, size.layers_cut)
        for parameter in split.shallow.parameters():
            parameter.data = parameter.data.bfloat16()
        texts_per_s = encode_texts_per_s(split.shallow, size, device)
    deep = split.deep
    del split, llm
    forward = {
        length: forward_operations(deep.llm, sequences=1, length=length) for length in (1, SHAPE.behaviors_per_feature)
    }
    model = new_model(spec, deep, seed=0).to(device).train()
    trainer = Trainer(model, tuning=tuning, device=device)
    embeddings = random_embeddings(NUM_TEXTS, deep.width)
    for per_user in IMPRESSIONS_PER_USER:
        samples = size.users * per_user
        rows = cost_rows(SHAPE, users=size.users * NUM_BATCHES, impressions_per_user=per_user, num_texts=NUM_TEXTS)
        with PeakMemory(device) as memory:
            seconds = seconds_of_step(trainer, rows, embeddings, steps=size.steps)
        passed = size.users * SHAPE.num_features * forward[SHAPE.behaviors_per_feature] + samples * forward[1]
        operations = training_operations(passed, lora=tuning == "lora")
        document.rows.append(
            {
                "impressions_per_user": per_user,
                "samples_a_step": samples,
                "samples_per_s": samples / seconds["step_s"],
                **{name.removesuffix("_s") + "_ms": value * 1000 for name, value in seconds.items()},
                "tera_operations_a_step": operations / 1e12,
                "mfu": operations / seconds["step_s"] / peak,
                "mfu_without_collate": operations / seconds["without_collate_s"] / peak,
                "matmul_tera_operations_per_s": peak / 1e12,
                "peak_mb": memory.peak_mb,
                "peak_mb_encoding": encoding_memory.peak_mb,
                "encode_texts_per_s": texts_per_s,
                "tuning": tuning,
                "llm": "{hidden_size} x {num_hidden_layers}, cut at {cut}".format(**size.llm, cut=size.layers_cut),
                "behaviors": SHAPE.behaviors_per_feature,
                "features": SHAPE.num_features,
                "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            }
        )
    grouped = document.rows[-1]
    document.figures = {name: grouped[name] for name in ("samples_per_s", "encode_texts_per_s", "mfu")}
    document.figures["hours_50m"] = SAMPLES_OF_A_WEEK / grouped["samples_per_s"] / 3600
    document.figures["samples_per_s_ungrouped"] = document.rows[0]["samples_per_s"]
    return document


def main() -> None:
    parser = benchmark_arguments(__doc__, small="tiny size, with or without a GPU")
    parser.add_argument("--layers-cut", type=int, default=12, help="shallow layers of 24")
    parser.add_argument("--users", type=int, default=64, help="users a step, each with 1 or 4 impressions")
    parser.add_argument("--steps", type=int, default=12, help="steps timed")
    parser.add_argument("--tuning", choices=("full", "lora"), default="full", help="lora needs the package peft")
    given = parser.parse_args()
    logging.set_verbosity_error()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not given.small:
        print("torch sees no GPU here; --small runs the same steps at tiny size on the CPU", file=sys.stderr)
        raise SystemExit(2)
    size = Size(QWEN_1_8B, given.layers_cut, given.users, given.steps, texts_at_once=8192, matmul=8192)
    if given.small:
        size = Size(TINY, layers_cut=2, users=4, steps=4, texts_at_once=256, matmul=512)
    run(size, tuning=given.tuning, device=device).show(as_json=given.json)


if __name__ == "__main__":
    main()
