"""The models that `split_study` compares, and the replay of one of them.

| kind | history is read as | shallow layers | a table of embeddings |
|---|---|---|---|
| full_text | all tokens, one sequence | trained | no |
| bahe | a vector a behavior | frozen | yes |
| without_table | a vector a behavior | frozen, run for every impression | no |
| token_vectors | a vector a token, one sequence a text feature | frozen, over one behavior at a time | yes |

`without_table` takes only the saving of shorter sequences, `token_vectors` only that of dedup.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import process_time
from typing import Any, Literal, cast

import numpy as np
import torch
from transformers import AutoConfig, AutoModel

from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.config import Config, EncoderConfig
from bahe_tasks.core.columns import LABEL
from bahe_tasks.core.ctr_model import BaheCtrModel
from bahe_tasks.core.device import pick_device
from bahe_tasks.core.model_spec import ModelSpec
from bahe_tasks.core.text_encoder import TextEncoder
from bahe_tasks.core.tokens import TextTokenizer
from bahe_tasks.core.training_rows import ImpressionRows, texts_read
from bahe_tasks.stages.model_of_day import model_to_train, rate_to_start_at
from benchmarks.kit.full_text import FullTextCtrModel, without_behaviors
from benchmarks.kit.replay import ModelOfDay, Predictions, replay
from benchmarks.kit.study_log import StudyLog
from benchmarks.kit.text_readers import (
    EncodedAnew,
    Reading,
    TokenVectors,
    WholeText,
    text_numbers,
    token_vectors,
    whole_text_tokens,
)

Kind = Literal["full_text", "bahe", "without_table", "token_vectors"]


@dataclass(frozen=True)
class SplitVariant:
    """One way to read a history."""

    kind: Kind
    num_shallow_layers: int
    tuning: Literal["full", "frozen"] = "full"


@dataclass(frozen=True)
class VariantRun:
    """What one seed of a variant predicted and cost."""

    predictions: Predictions
    encode_cpu_s: float  # shallow layers over all texts of the table, once
    model: BaheCtrModel


def split_variants(splits: list[int], *, default: int, num_layers: int) -> list[SplitVariant]:
    """Return full text, bahe at each of `splits` trained and frozen, and the two savings apart at the `default` split."""
    trained = [SplitVariant("bahe", k) for k in splits]
    frozen = [SplitVariant("bahe", k, "frozen") for k in splits if k < num_layers]  # else there is nothing to freeze
    apart = [SplitVariant("without_table", default), SplitVariant("token_vectors", default)]
    return [SplitVariant("full_text", 0), *trained, *frozen, *apart]


def num_layers(encoder: EncoderConfig) -> int:
    """Return the number of layers of the whole LLM."""
    return int(AutoConfig.from_pretrained(checkpoint_dir(encoder.checkpoint), local_files_only=True).num_hidden_layers)


def replay_variant(variant: SplitVariant, study: StudyLog, config: Config, *, seed: int) -> VariantRun:
    """Replay the days with a variant of `config`. Rows, head, columns, optimiser and seed are the same for all.

    None has topics, ids of texts and lengths of histories: LLM-CTR knows no behaviors apart.
    """
    config = replace(
        config,
        encoder=replace(config.encoder, num_shallow_layers=variant.num_shallow_layers),
        model=without_behaviors(replace(config.model, deep_tuning=variant.tuning)),
    )
    folder, device = checkpoint_dir(config.encoder.checkpoint), pick_device(config.encoder.device)
    texts, rows = study.log.texts, [rows for _, rows in study.days]
    began = process_time()
    embeddings = text_numbers(len(texts))
    model_of_day: ModelOfDay = model_to_train
    if variant.kind == "bahe":
        embeddings = study.log.encode_read(rows, folder, config.encoder)
    elif variant.kind == "token_vectors":
        pooled = study.log.encode_read(rows, folder, config.encoder)
        began = process_time()  # pooling the tokens' vectors costs nothing; only this program encodes twice
        table = token_vectors(
            texts, texts_read(rows).tolist(), checkpoint_dir=folder, encoder=config.encoder, device=device
        )
        model_of_day = _reading_vectors(TokenVectors(*table, pooled))
    elif variant.kind == "without_table":
        encoder = TextEncoder(folder, config.encoder, device=device)
        model_of_day = _reading_vectors(EncodedAnew(texts, encoder))
    else:
        model_of_day = _reading_whole_text(texts)
    encode_cpu_s = process_time() - began if variant.kind in ("bahe", "token_vectors") else 0.0
    predictions, trained = replay(study.days, embeddings, config, texts=texts, seed=seed, model_of_day=model_of_day)
    return VariantRun(predictions, encode_cpu_s, trained.model)


def _only_on_the_first_day(first: ModelOfDay) -> ModelOfDay:
    """Return what makes the model of the first day by `first`; later days train it as it is."""

    def model_of_day(
        rows: ImpressionRows,
        embeddings: np.ndarray,
        config: Config,
        parent: tuple[BaheCtrModel, ModelSpec] | None,
        **given: Any,
    ) -> tuple[BaheCtrModel, ModelSpec]:
        return parent or first(rows, embeddings, config, None, **given)

    return model_of_day


def _reading_vectors(read: EncodedAnew | TokenVectors) -> ModelOfDay:
    """Return the model as the stages make it, behind a reader."""

    def first(*given: Any, **named: Any) -> tuple[BaheCtrModel, ModelSpec]:
        model, spec = model_to_train(*given, **named)
        return _as_ctr_model(Reading(model, spec, read)), spec

    return _only_on_the_first_day(first)


def _reading_whole_text(texts: list[str]) -> ModelOfDay:
    """Return LLM-CTR with text features and columns of the first day."""

    def first(
        rows: ImpressionRows, embeddings: np.ndarray, config: Config, _: None, *, seed: int, **given: Any
    ) -> tuple[BaheCtrModel, ModelSpec]:
        spec = model_to_train(rows, embeddings, config, None, seed=seed, **given)[1]
        folder = checkpoint_dir(config.encoder.checkpoint)
        llm = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        num_token_ids = len(llm.get_input_embeddings().weight)
        tokens = whole_text_tokens(texts, TextTokenizer(folder, config.encoder, num_token_ids=num_token_ids))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = FullTextCtrModel(spec, llm)
        model.head.outputs.start_at({LABEL: rate_to_start_at(rows, spec)})
        read = WholeText(tokens, spec.features, max_tokens=int(llm.config.max_position_embeddings))
        return _as_ctr_model(Reading(model.eval(), spec, read)), spec

    return _only_on_the_first_day(first)


def _as_ctr_model(model: Reading) -> BaheCtrModel:
    """Return the model under the type that `core.train` and `core.score` ask for; it has what they read."""
    return cast(BaheCtrModel, model)
