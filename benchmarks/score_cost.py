"""Click probabilities from cached embeddings: many pairs at once, and 100 candidates for one user.

    python -m benchmarks.score_cost [--json] [--small] [--threads N]

Width 384 as of MiniLM, N = 2 and 6 text features, default head, ids, two categorical and two numeric columns, point-in-time numbers; weights
and embeddings are random. Rows: pairs of a user each, which are scored apart; 100 pairs a user, whose share of the head's
first map is done once; and, for reference, the same 100 with every pair apart. Figures: `pairs_per_s` (N = 6, each pair
of a user of its own; target 100,000 on 2 cores), `pairs_per_s_100_a_user`, `speedup_100_a_user` (by processor time, against
each apart), `pairs_per_s_2_features`; `p50_ms` and `p99_ms`, milliseconds for a request of 100 candidates of one user,
N = 6. Rows tell what columns and point-in-time numbers take of a pair's time, and the operations of the head's linear maps.
"""

from __future__ import annotations

from functools import cache
from time import perf_counter, process_time

import numpy as np
import torch

from bahe_tasks.config import ModelConfig
from bahe_tasks.core import history_extent
from bahe_tasks.core.ctr_model import BaheCtrModel, new_model
from bahe_tasks.core.llm_split import LlmSplit
from bahe_tasks.core.score import PAIRS_AT_ONCE, score_pairs
from bahe_tasks.core.training_rows import hashed_columns, numbers_read
from bahe_tasks.core.user_fields import EmbeddingParts
from bahe_tasks.running_sums import IMPRESSION_SUMS
from benchmarks.kit.cost_model import Shape, cost_spec, random_llm
from benchmarks.kit.document import Document
from benchmarks.kit.program import benchmark_arguments

WIDTH, CANDIDATES, NUM_ITEMS = 384, 100, 20_000
PARTS = EmbeddingParts(WIDTH, ModelConfig().text_topics, ModelConfig().text_id_width, history_extent.WIDTH)
WAYS = ((1, False), (CANDIDATES, True), (CANDIDATES, False))  # pairs a user, and whether those are given as one user's
CPU = torch.device("cpu")
LLM = {
    "model_type": "bert", "vocab_size": 1000, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 12,
    "intermediate_size": 1536,
}  # fmt: skip
Pairs = dict[str, np.ndarray | dict[str, np.ndarray]]


def model_of(num_features: int) -> BaheCtrModel:
    """Return a model of the default settings; its deep layers take no part in scoring pairs."""
    shape = Shape(num_features, behaviors_per_feature=0, tokens_per_behavior=0)
    llm = random_llm(LLM, device=CPU)
    spec = cost_spec(
        shape,
        llm,
        num_shallow_layers=1,
        model=ModelConfig(),
        cat_columns=("city", "genre"),
        num_columns=("hour", "price"),
    )
    return new_model(spec, LlmSplit.of(llm, 1).deep, seed=0)


@cache
def item_table() -> np.ndarray:
    """Return the embeddings of all items, (NUM_ITEMS, E) float32."""
    return random_vectors(np.random.default_rng(0), NUM_ITEMS, 1, width=PARTS.of_item)


def random_vectors(rng: np.random.Generator, num_rows: int, num_features: int, *, width: int) -> np.ndarray:
    """Return embeddings of users or items, (rows, features · width) float32: random numbers around equal shares of topics."""
    vectors = rng.standard_normal((num_rows, num_features, width), np.float32)
    vectors[:, :, PARTS.deep : PARTS.told] = 1 / PARTS.topics
    return vectors.reshape(num_rows, -1)


def pairs_of(num_pairs: int, num_features: int, *, pairs_a_user: int, together: bool = True, seed: int) -> Pairs:
    """Return the arguments of `score_pairs` for so many pairs with any of 20,000 items.

    Unless `together` every pair has an embedding of its own, and no user's pairs are known to be one user's.
    """
    rng = np.random.default_rng(seed)
    user = np.arange(num_pairs) // pairs_a_user
    item = rng.integers(NUM_ITEMS, size=num_pairs)
    of_user = random_vectors(rng, user[-1] + 1, num_features, width=PARTS.of_history)
    return {
        "user_embedding": of_user if together else of_user[user],
        "item_embedding": item_table(),
        "user_of": user if together else np.arange(num_pairs),
        "item_of": item,
        "user_ids": np.array([f"user-{u}" for u in user], object),
        "item_ids": np.array([f"item-{i}" for i in item], object),
        "cat": {
            "city": np.array([f"city {u % 300}" for u in user], object),
            "genre": np.array([f"genre {i % 20}" for i in item], object),
        },
        "num": {"hour": rng.uniform(0, 1, num_pairs), "price": rng.uniform(0, 1, num_pairs)},
        "sums": rng.uniform(0, 1, (num_pairs, len(IMPRESSION_SUMS))),
    }


def seconds_of(model: BaheCtrModel, requests: list[Pairs], *, batch_size: int) -> np.ndarray:
    """Return wall and processor seconds that `score_pairs` takes for each request, (requests, 2)."""
    seconds = []
    for request in requests:
        began = perf_counter(), process_time()
        score_pairs(model, **request, batch_size=batch_size, device=CPU)  # type: ignore[arg-type]
        seconds.append((perf_counter() - began[0], process_time() - began[1]))
    return np.array(seconds)


def columns_us(model: BaheCtrModel, pairs: Pairs) -> float:
    """Return the microseconds a pair's columns and numbers take, which are made before the head runs."""
    ids = {name: pairs[name] for name in ("user_ids", "item_ids")}
    began = perf_counter()
    hashed_columns(model.spec, **ids, cat=pairs["cat"])  # type: ignore[arg-type]
    numbers_read(model.spec, pairs["num"], pairs["sums"], num_rows=len(ids["user_ids"]))  # type: ignore[arg-type]
    return (perf_counter() - began) / len(ids["user_ids"]) * 1e6


def head_operations(model: BaheCtrModel) -> float:
    """Return the operations the head's linear maps take for a pair that is scored apart: two for each weight."""
    return 2.0 * sum(part.weight.numel() for part in model.head.modules() if isinstance(part, torch.nn.Linear))


def run(*, num_pairs: int, rounds: int, num_requests: int, batch_size: int) -> Document:
    """Measure N = 2 and 6, each in every way."""
    document = Document("score_cost")
    for num_features in (2, 6):
        model = model_of(num_features)
        for pairs_a_user, together in WAYS:
            how = {"pairs_a_user": pairs_a_user, "together": together}
            pairs = pairs_of(num_pairs, num_features, **how, seed=0)  # type: ignore[arg-type]
            seconds_of(model, [pairs], batch_size=batch_size)
            wall, cpu = np.median(seconds_of(model, [pairs] * rounds, batch_size=batch_size), axis=0)
            row = {
                "features": num_features,
                "pairs": num_pairs,
                **how,
                "batch_size": batch_size,
                "pairs_per_s": num_pairs / wall,
                "pairs_per_cpu_s": num_pairs / cpu,
                "us_per_pair": wall / num_pairs * 1e6,
                "of_it_columns_us": float(np.median([columns_us(model, pairs) for _ in range(rounds)])),
                "head_kilo_operations_a_pair_apart": head_operations(model) / 1e3,
            }
            ms: dict[str, float | None] = {"p50_ms": None, "p99_ms": None}
            if pairs_a_user == CANDIDATES:
                ms |= request_ms(model, num_features, together, num_requests, batch_size=batch_size)
            document.rows.append(row | ms)
    two, _, _, six, grouped, apart = document.rows
    document.figures = {
        "pairs_per_s": six["pairs_per_s"],
        "pairs_per_s_100_a_user": grouped["pairs_per_s"],
        "speedup_100_a_user": grouped["pairs_per_cpu_s"] / apart["pairs_per_cpu_s"],
        "pairs_per_s_2_features": two["pairs_per_s"],
        "p50_ms": grouped["p50_ms"],
        "p99_ms": grouped["p99_ms"],
    }
    return document


def request_ms(
    model: BaheCtrModel, num_features: int, together: bool, num_requests: int, *, batch_size: int
) -> dict[str, float]:
    """Return the median and the 99th percentile of the milliseconds 100 candidates of a user take; 20 users in turn."""
    requests = [
        pairs_of(CANDIDATES, num_features, pairs_a_user=CANDIDATES, together=together, seed=seed) for seed in range(20)
    ]
    seconds_of(model, requests, batch_size=batch_size)
    ms = seconds_of(model, requests * (num_requests // 20), batch_size=batch_size)[:, 0] * 1000
    return {"p50_ms": float(np.percentile(ms, 50)), "p99_ms": float(np.percentile(ms, 99))}


def main() -> None:
    parser = benchmark_arguments(__doc__, small="fewer pairs and requests")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0: torch's choice")
    parser.add_argument("--batch-size", type=int, default=PAIRS_AT_ONCE, help="pairs the head reads at once")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    num_pairs, rounds, num_requests = (8000, 3, 200) if given.small else (32000, 5, 1000)
    document = run(num_pairs=num_pairs, rounds=rounds, num_requests=num_requests, batch_size=given.batch_size)
    document.show(as_json=given.json)


if __name__ == "__main__":
    main()
