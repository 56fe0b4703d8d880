"""Shallow encoding of item titles against sentence-transformers with the same layers, tokens and threads.

    python -m benchmarks.encode_cost [--json] [--small]

Both run the layers below the cut of all-MiniLM-L6-v2 with mean pooling over real titles (MovieTweetings under
BAHE_SHARED or ../shared, else synthetic ones), tokenisation included, models already loaded, in turn within every
repetition. sentence-transformers runs as it comes: float32, batches of 32 sorted by length. A speed-up is the median
over repetitions of its seconds by ours; cosines are to one text at a time through plain `transformers` in float32.

Figures: `speedup` (target ≥ 1.5) and `min_cosine` (≥ 0.9999) of the default settings, float32; the same with
`_bfloat16` for `encoder.compute_dtype: bfloat16`, a setting with an encoder_version of its own; and
`speedup_in_bfloat16`, against sentence-transformers in bfloat16 too. `--small` leaves out other budgets and lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter
from typing import Annotated, Literal

import numpy as np
import torch
import typer
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.config import EncoderConfig
from bahe_tasks.core.device import pick_device
from bahe_tasks.core.encode_chunks import chunks_of
from bahe_tasks.core.text_encoder import TextEncoder
from benchmarks.kit.document import Document
from benchmarks.kit.settings import AsJson
from benchmarks.kit.titles import item_titles

Dtype = Literal["float32", "bfloat16"]
Encode = Callable[[list[str]], np.ndarray]
REFERENCE = "sentence-transformers"
REPETITIONS = 5
BUDGETS = (256, 1024, 2048, 8192)


def sentence_transformer(folder: Path, encoder: EncoderConfig, *, dtype: Dtype) -> Encode:
    """Return sentence-transformers' encode over the same layers."""
    lower = Transformer(
        str(folder),
        max_seq_length=encoder.max_tokens_per_behavior,
        config_kwargs={"num_hidden_layers": encoder.num_shallow_layers},
        model_kwargs={"dtype": dtype},
    )
    modules = [lower, Pooling(lower.get_embedding_dimension(), "mean")]
    model = SentenceTransformer(modules=modules, device=str(pick_device(encoder.device)))
    return lambda texts: np.asarray(model.encode(texts), np.float32)


def ours(folder: Path, encoder: EncoderConfig) -> Encode:
    """Return our encode: (M, H) float16 in the order of the chunks, put into that of the texts."""
    text_encoder = TextEncoder(folder, encoder, device=pick_device(encoder.device))

    def encode(texts: list[str]) -> np.ndarray:
        chunks = chunks_of(texts)
        row_of = {text: row for row, text in enumerate(text for chunk in chunks for text in chunk)}
        found = np.concatenate([text_encoder.encode(chunk) for chunk in chunks])
        return found[[row_of[text] for text in texts]].astype(np.float32)

    return encode


def plain_loop(folder: Path, encoder: EncoderConfig, texts: list[str]) -> np.ndarray:
    """Return the float32 mean of the tokens of each text, one text at a time, without any of our code: (M, H)."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    llm = AutoModel.from_pretrained(folder, num_hidden_layers=encoder.num_shallow_layers, dtype=torch.float32)
    found = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=encoder.max_tokens_per_behavior, return_tensors="pt")
        with torch.inference_mode():
            found.append(llm(**inputs).last_hidden_state[0].mean(0).numpy())
    return np.stack(found)


def min_cosine(vectors: np.ndarray, reference: np.ndarray) -> float:
    """Return the smallest cosine between rows of two (M, H)."""
    products = (vectors * reference).sum(1)
    return float((products / np.linalg.norm(vectors, axis=1) / np.linalg.norm(reference, axis=1)).min())


def seconds_of(contenders: dict[str, Encode], texts: list[str]) -> dict[str, np.ndarray]:
    """Return each contender's seconds by repetition, all of them in turn, after a warm-up on a few texts."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for encode in contenders.values():
        encode(texts[:64])
    for _ in range(REPETITIONS):
        for name, encode in contenders.items():
            began = perf_counter()
            encode(texts)
            seconds[name].append(perf_counter() - began)
    return {name: np.array(of) for name, of in seconds.items()}


def measure(document: Document, kind: str, texts: list[str], contenders: dict[str, Encode], folder: Path) -> None:
    """Add a row for each contender on these texts; the first is the reference."""
    plain = plain_loop(folder, EncoderConfig(), texts)
    seconds = seconds_of(contenders, texts)
    base = next(iter(seconds.values()))
    for name, encode in contenders.items():
        document.rows.append(
            {
                "texts": f"{len(texts)} {kind}",
                "encoder": name,
                "texts_per_s": len(texts) / float(np.median(seconds[name])),
                "speedup": float(np.median(base / seconds[name])),
                "min_cosine": min_cosine(encode(texts), plain),
            }
        )


def of_words(titles: Iterable[str], count: int) -> list[str]:
    """Return texts of `count` words each, cut from the titles one after another."""
    words = [word for title in titles for word in title.split()]
    return [" ".join(words[start : start + count]) for start in range(0, len(words) - count + 1, count)]


def run(*, small: bool) -> Document:
    """Measure and return what was found."""
    document = Document("encode_cost")
    folder = checkpoint_dir(EncoderConfig().checkpoint)
    titles, source = item_titles(256 if small else 1024)
    in_bfloat16 = f"{REFERENCE} bfloat16"
    contenders = {
        REFERENCE: sentence_transformer(folder, EncoderConfig(), dtype="float32"),
        "ours": ours(folder, EncoderConfig()),
        "ours bfloat16": ours(folder, EncoderConfig(compute_dtype="bfloat16")),
        in_bfloat16: sentence_transformer(folder, EncoderConfig(), dtype="bfloat16"),
    }
    measure(document, f"{source} titles", titles, contenders, folder)
    by_name = {row["encoder"]: row for row in document.rows}
    if not small:
        budgets = {f"ours, {n} tokens a batch": ours(folder, EncoderConfig(tokens_per_batch=n)) for n in BUDGETS}
        measure(document, f"{source} titles", titles[:256], {REFERENCE: contenders[REFERENCE]} | budgets, folder)
        for words, count in ((2, 256), (50, 64)):
            measure(document, f"{words} words", of_words(titles, words)[:count], contenders, folder)
    document.figures = {
        "speedup": by_name["ours"]["speedup"],
        "min_cosine": by_name["ours"]["min_cosine"],
        "speedup_bfloat16": by_name["ours bfloat16"]["speedup"],
        "min_cosine_bfloat16": by_name["ours bfloat16"]["min_cosine"],
        "speedup_in_bfloat16": by_name["ours bfloat16"]["speedup"] / by_name[in_bfloat16]["speedup"],
        "texts": float(len(titles)),
    }
    return document


def main(
    as_json: AsJson = False,
    small: Annotated[bool, typer.Option(help="Fewer titles, the default budget and real lengths only.")] = False,
) -> None:
    """Encode item titles by ours and by sentence-transformers, in float32 and bfloat16."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    run(small=small).show(as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
