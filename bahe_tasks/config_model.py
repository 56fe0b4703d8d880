"""The sections of `bahe.yaml` that decide what the model is and how it is trained: encoder, model, training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bahe_tasks.config_checks import ConfigError, above_zero, at_least, setting, share

_LEAST_BATCH, _ROWS_OF_LEAST_BATCH = 32, 1024


@dataclass(frozen=True)
class EncoderConfig:
    """The shallow layers. Everything but device and tokens_per_batch is part of encoder_version."""

    checkpoint: str = setting(
        "all-MiniLM-L6-v2",
        "local folder or hub name of a transformers checkpoint; all-MiniLM-L6-v2 comes with its pip package",
    )
    num_shallow_layers: int = setting(
        5,
        "layers, from the bottom, that are frozen and run once per distinct text; all-MiniLM-L6-v2 has 6 (docs/quality.md)",
    )
    pooling: Literal["mean", "first", "last"] = setting("mean", "how the token vectors of a text become one vector")
    prompt: str = setting("{text}", "text the LLM reads for a behavior or title; {text} stands for it")
    max_tokens_per_behavior: int = setting(
        64, "T: tokens of a text with its prompt that are read; the rest is cut off, what follows {text} first"
    )
    compute_dtype: Literal["float32", "bfloat16"] = setting(
        "float32", "dtype the shallow layers compute in, on every device"
    )
    tokens_per_batch: int = setting(
        0, "tokens, padding included, encoded in one batch; 0: 1,024 on a CPU, 32,768 on a GPU"
    )
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "where torch computes; auto takes a GPU if there is one")

    def __post_init__(self) -> None:
        at_least(self, 0, "num_shallow_layers", "tokens_per_batch")
        at_least(self, 1, "max_tokens_per_behavior")
        if "{text}" not in self.prompt:
            raise ConfigError("prompt must contain {text}")


@dataclass(frozen=True)
class ModelConfig:
    """Deep layers and CTR head. A change of a setting that shapes weights asks for a new registry.model_name."""

    features: tuple[str, ...] = setting(
        (), "text features in force; empty: those seen so far, new ones added as they appear"
    )
    cat_columns: tuple[str, ...] = setting((), "categorical columns in force, without cat_; empty: those seen so far")
    num_columns: tuple[str, ...] = setting((), "numeric columns in force, without num_; empty: those seen so far")
    extra_labels: tuple[str, ...] = setting(
        (), "further labels, 0 or 1, learnt beside label, without label_; click_probability stays that of label"
    )
    deep_attention: Literal["as_trained", "bidirectional", "causal"] = setting(
        "as_trained", "which behaviors a behavior sees in the deep layers: as in the LLM, all of them, or older ones"
    )
    deep_tuning: Literal["full", "lora", "frozen"] = setting(
        "full", "what is trained of the deep layers: all weights, LoRA adapters, or nothing"
    )
    lora_rank: int = setting(8, "rank of a LoRA adapter")
    lora_alpha: float = setting(16.0, "scale of a LoRA adapter: its output counts lora_alpha / lora_rank fold")
    lora_dropout: float = setting(0.0, "dropout before a LoRA adapter, share of units")
    behavior_pooling: Literal["mean", "first", "last", "attention", "summary"] = setting(
        "summary",
        "how the S outputs of the deep layers become one vector a feature; attention is learned; summary: the output at "
        "one more position, at the end, that reads the mean of the others",
    )
    recency_buckets: int = setting(
        16, "log-time buckets of a behavior's age, each a learned vector; 0 switches recency off"
    )
    position_buckets: int = setting(
        0, "learned vectors of a behavior's position, counted from the newest; older ones share the last; 0: none"
    )
    item_reading: Literal["apart", "beside"] = setting(
        "apart",
        "apart: the item passes the deep layers alone and the user embedding can be cached; "
        "beside: it is also the last position of each of the user's sequences",
    )
    head: Literal["mlp", "deepfm", "dcn_v2", "din"] = setting(
        "dcn_v2", "CTR head; with din the user side depends on the item and cannot be cached"
    )
    hidden_widths: tuple[int, ...] = setting((128, 64), "widths of the hidden layers of the head's MLP")
    field_width: int = setting(16, "width of the vector an input becomes inside deepfm and dcn_v2")
    cross_layers: int = setting(2, "cross layers of dcn_v2")
    cross_rank: int = setting(64, "rank of the matrix of a cross layer of dcn_v2")
    attention_width: int = setting(64, "hidden width of the attention unit of din")
    dropout: float = setting(0.3, "dropout in the head, share of units")
    point_in_time_numbers: bool = setting(
        True,
        "whether rates, counts, residuals and ages of user, item, both and title tokens are read beside the text, and the logit "
        "starts from what smoothed means expect (docs/model.md)",
    )
    text_topics: int = setting(
        16,
        "Z: soft topics that texts are told by beside their embedding, so that the head reads how much of a history is about "
        "what the item is about; 0: none",
    )
    text_id_width: int = setting(
        8,
        "W: width of what is learned of each text itself, as of an id, beside what it says; it has hash_buckets rows; 0: nothing",
    )
    history_extents: bool = setting(
        True,
        "whether the head reads how long each history is, up to sequences.max_behaviors_per_sequence, beside what is made of its behaviors",
    )
    id_embeddings: bool = setting(True, "whether user_id and item_id enter the head as categorical columns")
    hash_buckets: int = setting(
        65536,
        "rows of the hashed embedding of one column, and of that of all texts; what shares a row is not told apart: a few times "
        "the number of values or texts",
    )
    cat_width: int = setting(16, "width of the embedding of one categorical column")

    def __post_init__(self) -> None:
        at_least(self, 0, "recency_buckets", "position_buckets", "text_topics", "text_id_width")
        at_least(self, 1, "hash_buckets", "cat_width", "lora_rank", "field_width", "cross_layers", "cross_rank")
        at_least(self, 1, "attention_width")
        above_zero(self, "lora_alpha")
        if "label" in self.extra_labels or len(set(self.extra_labels)) < len(self.extra_labels):
            raise ConfigError(f"extra_labels must not name label or one label twice: {', '.join(self.extra_labels)}")
        if self.behavior_pooling == "first" and self.deep_attention == "causal":
            raise ConfigError("behavior_pooling first sees the oldest behavior alone where attention is causal")
        share(self, "dropout", "lora_dropout")
        if min(self.hidden_widths, default=0) < 1:
            raise ConfigError("hidden_widths must hold at least one width, each at least 1")

    @property
    def user_is_cacheable(self) -> bool:
        """Whether the user embedding is the same for every candidate item, as in the paper."""
        return self.item_reading == "apart" and self.head != "din"


@dataclass(frozen=True)
class TrainingConfig:
    """The daily fine-tune."""

    start_from: Literal["parent", "scratch"] = setting(
        "parent",
        "parent: warm start from the model of the days before; scratch: pre-trained deep layers and a new head, "
        "for a re-fit over window_days",
    )
    keep_optimizer_state: bool = setting(
        False,
        "whether AdamW's moments of the deep layers go on across days as those of the head do; they are then stored with "
        "each version, twice its size",
    )
    window_days: int = setting(
        1,
        "days of impressions trained on, D included, beside days since the parent's that no model came of; held-out rows "
        "follow gate.gate_days later",
    )
    epochs: int = setting(1, "passes over the window, at most")
    batch_size: int = setting(
        0,
        "B: impressions a step; 0: 32, and where more than a thousand are trained on as many more as the root of their "
        "number is larger (docs/quality.md)",
    )
    deep_learning_rate: float = setting(2e-4, "AdamW step size of the deep layers, at first")
    head_learning_rate: float = setting(4e-3, "Muon step size of every weight matrix outside the LLM, at first")
    vector_learning_rate: float = setting(
        2e-3,
        "AdamW step size, at first, of what else is dense outside the LLM: biases, maps to one number, learned embeddings",
    )
    hashed_learning_rate: float = setting(0.05, "Adagrad step size of hashed embeddings")
    average_steps: int = setting(
        1000, "the weights of the head that score are an average over about so many last steps; 0: the last ones"
    )
    warmup_steps: int = setting(0, "steps over which step sizes rise from 0, counted across days from the first one")
    decay_steps: int = setting(
        75,
        "Muon's and AdamW's step sizes fall with the root of 1 + steps / decay_steps, counted across days; 0: they do not",
    )
    min_learning_rate_share: float = setting(0.1, "share of a step size that decay leaves at least")
    weight_decay: float = setting(0.01, "weight decay of AdamW and Muon; hashed embeddings have none")
    max_gradient_norm: float = setting(
        1.0, "norm that gradients of dense weights are clipped to; those of hashed embeddings are not"
    )
    label_weighting: Literal["fixed", "uncertainty"] = setting(
        "fixed", "how the losses of several labels add up: by label_weights, or by a learned variance each"
    )
    label_weights: dict[str, float] = setting(
        {},
        "weight of the loss of a landed label where label_weighting is fixed, by name without label_; others weigh 1",
    )
    level_learned: float = setting(
        0.3,
        "share of how much more or less a training window is clicked than the model expects that is learned, by the click's "
        "bias at the end of each epoch; the rest counts as the window's own. 1: it is learned like all else",
    )
    outcome_weight: float = setting(
        0.5,
        "weight of each of the labels, four at most, that say how large an outcome value is: the value of an event about "
        "the shown item, from the same user on the same day; 0: they are not learnt",
    )
    early_stop_share: float = setting(
        0.0, "share of the training users whose rows decide when to stop and are not trained on that day; 0: none"
    )
    patience_epochs: int = setting(1, "passes without a better logloss on those rows after which training stops")
    compute_dtype: Literal["float32", "bfloat16"] = setting(
        "float32", "dtype of matrix products while training, on every device; weights and scoring stay float32"
    )
    rows_a_pass: int = setting(
        0, "impressions whose gradients are computed at once; a batch of more takes several passes; 0: the whole batch"
    )
    positions_a_pass: int = setting(
        0,
        "behaviors whose gradients are computed at once, those of a user state counted once; an impression with more has "
        "a pass of its own; 0: any number on a GPU, on a CPU as many as keep tensors below 20 MB, since larger ones are slow",
    )
    fused_optimizer: bool = setting(
        True, "whether AdamW updates all of a weight in one kernel: faster on a CPU too, with other last bits"
    )
    num_processes: int = setting(1, "processes that share each batch; 0: one a GPU, or one where there is none")
    compile_layers: bool = setting(
        False,
        "compile the deep layers but the last with torch.compile: pays for a large LLM on a GPU, tens of seconds at first",
    )
    gradient_checkpointing: bool = setting(
        False, "whether the deep layers' hidden states are computed again for gradients: less memory, a third more work"
    )
    checkpoint_steps: int = setting(500, "steps between saved states, from which a killed fine-tune goes on; 0: none")
    seed: int = setting(17, "seed; each day derives its own from it")
    num_threads: int = setting(0, "torch CPU threads; 0 leaves the choice to torch; equal results need equal counts")

    def __post_init__(self) -> None:
        at_least(self, 1, "window_days", "epochs", "patience_epochs")
        at_least(self, 0, "batch_size", "rows_a_pass", "positions_a_pass", "num_processes", "average_steps")
        at_least(self, 0, "num_threads", "warmup_steps", "decay_steps", "checkpoint_steps", "weight_decay", "seed")
        at_least(self, 0, "deep_learning_rate", "head_learning_rate", "vector_learning_rate")
        at_least(self, 0, "hashed_learning_rate", "outcome_weight", "level_learned")
        if self.level_learned > 1:
            raise ConfigError(f"level_learned must be at most 1, not {self.level_learned}")
        above_zero(self, "max_gradient_norm")
        share(self, "early_stop_share", "min_learning_rate_share")
        if self.early_stop_share and self.epochs == 1:
            raise ConfigError("early_stop_share decides after which epoch to stop: set epochs above 1, or it to 0")
        if self.early_stop_share and self.window_days > 1 and self.start_from == "parent":
            raise ConfigError(
                "early_stop_share with window_days above 1 needs start_from scratch: the parent was trained "
                "on the rows of the earlier days that would decide"
            )
        if any(weight < 0 for weight in self.label_weights.values()):
            raise ConfigError("label_weights must not be negative")

    def batch_size_of(self, num_rows: int) -> int:
        """Return B where so many impressions are trained on."""
        return self.batch_size or round(_LEAST_BATCH * max(1.0, num_rows / _ROWS_OF_LEAST_BATCH) ** 0.5)

    @property
    def scored_at_once(self) -> int:
        """Impressions scored at once: scoring keeps no gradients, so eight times what a small log is trained on at once."""
        return 8 * (self.rows_a_pass or self.batch_size or _LEAST_BATCH)
