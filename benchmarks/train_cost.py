"""What a training step costs: full text, either saving of the paper alone, both, and impressions of a user grouped.

    python -m benchmarks.train_cost [--json] [--small] [--tokens 512 1024 2048] [--pooling summary] [--reuse-rate 0.99]
        [--compile-layers] [--compute-dtype float32]

| variant | reads |
|---|---|
| full_text | the tokens of the whole history in one sequence, all layers trained (the paper's LLM-CTR) |
| dedup_only | cached vectors that all layers made of each behavior; no layer over sequences of them |
| split_only | each sample's behaviors through the frozen shallow layers, no cache; deep layers over their vectors |
| bahe | cached vectors of the shallow layers; deep layers over a sequence for each text feature |
| bahe_ragged | the same, histories of 1 to 2 S - 1 behaviors, S on average |
| bahe_grouped | as bahe, on 4 impressions of each user at one time, instead of 1 |

All variants pool as `--pooling` says, by default as `model.behavior_pooling` does; rows of bahe and bahe_grouped follow
for the other one of mean, which reads all outputs of the deep layers, and summary, which reads one. With `--compile-layers` all
but dedup_only are compiled as `training.compile_layers` does, full text too; with `--compute-dtype bfloat16` matrix products of
all are, as `training.compute_dtype` does (`share_of_peak` stays that of float32).

A step has 32 samples whatever the variant. Where fewer are timed at once (full_text, split_only) forward and backward count for
those, clipping and optimiser, once a step, for 32.

Figures: `speedup_N_ungrouped` and `speedup_N`, samples/s of a whole step of bahe and bahe_grouped over that of full_text
at N tokens of history; `memory_ratio_N_ungrouped` and `memory_ratio_N` likewise; `speedup_N_with_encoding`, bahe_grouped
with the shallow layers over texts not yet in the table, of which a sample has (1 - reuse rate) · (N·S + 1).

Memory is what forward and backward add at their peak to weights, gradients and optimiser state, per sample of the largest
pass, in a process of its own; as in `core.train`, a batch of long histories takes several passes on a CPU. Steps of the variants take turns, and the median counts. Operations are those of the layers (`kit.operations`); the
head's are left out. Random Llama-shaped weights: nothing here is about quality.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from time import perf_counter, process_time

import numpy as np
import torch
from torch import nn
from transformers.utils import logging

from bahe_tasks.config import ModelConfig
from bahe_tasks.core.compiled_layers import compiled
from benchmarks.kit.cost_model import Shape
from benchmarks.kit.document import Document
from benchmarks.kit.operations import matmul_operations_per_s
from benchmarks.kit.peak_memory import PeakMemory
from benchmarks.kit.program import benchmark_arguments, wait_for
from benchmarks.kit.variants import SAMPLES_A_STEP, VARIANTS, Variant, batch_of, build, encode_seconds

NUM_FEATURES, TOKENS_PER_BEHAVIOR = 6, 6
LLM = {
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6,
    "intermediate_size": 1536, "max_position_embeddings": 4096,
}  # fmt: skip
SMALL_LLM = LLM | {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 256, "vocab_size": 4000}
ROUNDS, SMALL_ROUNDS = 3, 2
MATMUL, SMALL_MATMUL = 2048, 512
Contender = tuple[str, str]
"""Variant and pooling."""


@dataclass(frozen=True)
class Conditions:
    """What holds for all variants."""

    small: bool
    pooling: str
    compile_layers: bool = False
    compute_dtype: str = "float32"

    @property
    def llm(self) -> dict[str, object]:
        return SMALL_LLM if self.small else LLM

    def arguments(self) -> list[str]:
        """Return what asks another process for the same."""
        flags = {"--small": self.small, "--compile-layers": self.compile_layers}
        given = [flag for flag, is_set in flags.items() if is_set]
        return ["--pooling", self.pooling, "--compute-dtype", self.compute_dtype, *given]


def contenders(pooling: str) -> list[Contender]:
    """Return every variant with this pooling, then what the other pooling costs."""
    other = "mean" if pooling == "summary" else "summary"
    return [*((name, pooling) for name in VARIANTS), ("bahe", other), ("bahe_grouped", other)]


def shape_of(tokens: int) -> Shape:
    """Return the shape whose histories have that many tokens, behaviors rounded to the nearest number."""
    behaviors = round(tokens / (NUM_FEATURES * TOKENS_PER_BEHAVIOR))
    return Shape(NUM_FEATURES, behaviors_per_feature=behaviors, tokens_per_behavior=TOKENS_PER_BEHAVIOR)


def built(contender: Contender, tokens: int, conditions: Conditions, *, device: torch.device) -> Variant:
    """Return a contender at a size."""
    name, pooling = contender
    samples = batch_of(name, tokens)
    variant = build(name, shape_of(tokens), llm=conditions.llm, pooling=pooling, device=device, num_samples=samples)
    variant.bfloat16 = conditions.compute_dtype == "bfloat16"
    return variant


def to_compile(variant: Variant, conditions: Conditions) -> list[nn.Module]:
    return variant.layers_to_compile if conditions.compile_layers else []


def memory_of(contender: Contender, tokens: int, conditions: Conditions, *, device: torch.device) -> float:
    """Return the MB a sample adds at the peak of forward and backward."""
    variant = built(contender, tokens, conditions, device=device)
    with compiled(to_compile(variant, conditions)):
        variant.step()  # gradients and moments are in place afterwards, and the caches of the libraries are warm
        variant.keep_gradients()
        with PeakMemory(device) as memory:
            variant.forward_backward()
    return memory.grown_mb / variant.num_held


def memory_in_another_process(sizes: list[int], conditions: Conditions) -> dict[str, list[float]]:
    """Return `memory_of` of each contender by tokens, from a process that gives freed memory back at once.

    So what a variant's peak is counted from is what is in use, not what an earlier one left to the allocator.
    """
    options = ["--tokens", *map(str, sizes), *conditions.arguments()]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.train_cost", "--memory", *options],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def timed(variant: Variant, device: torch.device) -> tuple[float, float]:
    """Return wall and processor seconds per sample of one step."""
    variant.optimizers.zero_grad()
    seconds = np.zeros(2)
    for part, samples in ((variant.forward_backward, variant.num_samples), (variant.update, SAMPLES_A_STEP)):
        wait_for(device)
        began = np.array([perf_counter(), process_time()])
        part()
        wait_for(device)
        seconds += (np.array([perf_counter(), process_time()]) - began) / samples
    return float(seconds[0]), float(seconds[1])


def run(sizes: list[int], conditions: Conditions, *, reuse_rate: float, device: torch.device) -> Document:
    """Measure every contender at every size."""
    document = Document("train_cost")
    memory_mb = memory_in_another_process(sizes, conditions)
    peak = matmul_operations_per_s(device, torch.float32, size=SMALL_MATMUL if conditions.small else MATMUL)
    for tokens in sizes:
        shape, memory = shape_of(tokens), memory_mb[str(tokens)]
        variants = [built(contender, tokens, conditions, device=device) for contender in contenders(conditions.pooling)]
        compiling = [to_compile(variant, conditions) for variant in variants]
        with compiled([layer for layers in compiling for layer in layers]):
            for variant in variants:
                variant.step()
            num_rounds = SMALL_ROUNDS if conditions.small else ROUNDS
            rounds = [[timed(variant, device) for variant in variants] for _ in range(num_rounds)]
        seconds = np.median(rounds, axis=0)  # (variants, wall and processor)
        for variant, (wall, cpu), mb, layers in zip(variants, seconds, memory, compiling, strict=True):
            encoding = encode_seconds(variant, device=device) * shape.texts_per_sample * (1 - reuse_rate)
            document.rows.append(
                {
                    "tokens": shape.history_tokens,
                    "variant": variant.name,
                    "pooling": variant.pooling,
                    "samples_per_s": 1 / wall,
                    "cpu_ms_per_sample": cpu * 1000,
                    "speedup": seconds[0, 0] / wall,
                    "speedup_cpu": seconds[0, 1] / cpu,
                    "encoding_ms_per_sample": encoding * 1000,
                    "speedup_with_encoding": seconds[0, 0] / (wall + encoding),
                    "giga_operations_per_sample": variant.operations / 1e9,
                    "share_of_peak": variant.operations / wall / peak,
                    "useful_positions": variant.useful_positions,
                    "mb_per_sample": mb,
                    "memory_ratio": mb / memory[0],
                    "state_mb": variant.state_mb,
                    "samples_timed": variant.num_samples,
                    "compiled_layers": len(layers),
                    "features": NUM_FEATURES,
                    "behaviors": shape.behaviors_per_feature,
                    "tokens_per_behavior": TOKENS_PER_BEHAVIOR,
                    "llm": "{hidden_size} x {num_hidden_layers}".format(**conditions.llm),
                    "reuse_rate": reuse_rate,
                    "device": device.type,
                }
            )
            print(f"{tokens} {variant.name}, {variant.pooling}: {1 / wall:.3g} samples/s", file=sys.stderr)
        by_name = {
            row["variant"]: row for row in document.rows[-len(variants) :] if row["pooling"] == conditions.pooling
        }
        document.figures |= {
            f"speedup_{tokens}_ungrouped": by_name["bahe"]["speedup"],
            f"speedup_{tokens}": by_name["bahe_grouped"]["speedup"],
            f"speedup_{tokens}_with_encoding": by_name["bahe_grouped"]["speedup_with_encoding"],
            f"memory_ratio_{tokens}_ungrouped": by_name["bahe"]["memory_ratio"],
            f"memory_ratio_{tokens}": by_name["bahe_grouped"]["memory_ratio"],
        }
    document.figures["matmul_giga_operations_per_s"] = peak / 1e9
    return document


def main() -> None:
    parser = benchmark_arguments(__doc__, small="a sixth of the width, two rounds")
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 1024, 2048], help="tokens of a history")
    parser.add_argument(
        "--pooling", default=ModelConfig().behavior_pooling, choices=("mean", "first", "last", "summary"), help="of all"
    )
    parser.add_argument("--reuse-rate", type=float, default=0.99, help="share of a sample's texts already encoded")
    parser.add_argument("--compile-layers", action="store_true", help="compile layers, full text's too")
    parser.add_argument(
        "--compute-dtype",
        default="float32",
        choices=("float32", "bfloat16"),
        help="of matrix products, full text's too",
    )
    parser.add_argument("--memory", action="store_true", help="print memory alone, measured in this process")
    given = parser.parse_args()
    logging.set_verbosity_error()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    conditions = Conditions(given.small, given.pooling, given.compile_layers, given.compute_dtype)
    if given.memory:
        found = {
            n: [memory_of(c, n, conditions, device=device) for c in contenders(conditions.pooling)]
            for n in given.tokens
        }
        print(json.dumps(found))
        return
    run(given.tokens, conditions, reuse_rate=given.reuse_rate, device=device).show(as_json=given.json)


if __name__ == "__main__":
    main()
