"""The sections of `bahe.yaml`: every setting with its type, default, meaning and unit, and the checks it must pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


class ConfigError(ValueError):
    """A setting that is unknown, of the wrong type or out of range."""


def setting(default: Any, meaning: str) -> Any:
    """A dataclass field with its default and one line of meaning and unit."""
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True)
class LandingConfig:
    """What is accepted from the landing folder, and when a label may be used."""

    folder: str = setting("landing", "landing folder; relative to the home folder; BAHE_LANDING overrides it")
    late_days: int = setting(3, "days a row's own time may lie before the day it landed; older rows go to quarantine")
    label_delay_s: int = setting(
        0, "seconds after shown_at from which a label may be used, where label_known_at is absent"
    )
    label_horizon_days: int = setting(7, "days after landing within which a label must become known to be trained on")

    def __post_init__(self) -> None:
        _at_least(self, 0, "late_days", "label_delay_s", "label_horizon_days")


@dataclass(frozen=True)
class SequencesConfig:
    """Point-in-time user histories."""

    history_days: int = setting(90, "days of landed events, D included, that a history is built from")
    max_behaviors_per_sequence: int = setting(50, "S: newest behaviors a model reads of one text feature")
    max_events_per_sequence: int = setting(
        1000, "behaviors stored for one user, feature and day; the oldest beyond are dropped and counted"
    )

    def __post_init__(self) -> None:
        _at_least(self, 1, "history_days", "max_behaviors_per_sequence", "max_events_per_sequence")
        if self.max_events_per_sequence < self.max_behaviors_per_sequence:
            raise ConfigError(
                "sequences.max_events_per_sequence must not be below sequences.max_behaviors_per_sequence"
            )


@dataclass(frozen=True)
class EncoderConfig:
    """The shallow layers. Everything but device and tokens_per_batch is part of encoder_version."""

    checkpoint: str = setting(
        "all-MiniLM-L6-v2",
        "local folder or hub name of a transformers checkpoint; all-MiniLM-L6-v2 comes with its pip package",
    )
    num_shallow_layers: int = setting(3, "layers, from the bottom, that are frozen and run once per distinct text")
    pooling: Literal["mean", "first", "last"] = setting("mean", "how the token vectors of a text become one vector")
    prompt: str = setting("{text}", "text the LLM reads for a behavior or title; {text} stands for it")
    max_tokens_per_behavior: int = setting(64, "T: tokens of a text that are read; the rest is cut off")
    compute_dtype: Literal["float32", "bfloat16"] = setting(
        "float32", "dtype the shallow layers compute in, on every device"
    )
    tokens_per_batch: int = setting(8192, "tokens, padding included, encoded in one batch")
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "where torch computes; auto takes a GPU if there is one")

    def __post_init__(self) -> None:
        _at_least(self, 0, "num_shallow_layers")
        _at_least(self, 1, "max_tokens_per_behavior", "tokens_per_batch")
        if "{text}" not in self.prompt:
            raise ConfigError("encoder.prompt must contain {text}")


@dataclass(frozen=True)
class ModelConfig:
    """Deep layers and CTR head."""

    features: tuple[str, ...] = setting(
        (), "text features in force; empty: those seen so far, new ones added as they appear"
    )
    cat_columns: tuple[str, ...] = setting((), "categorical columns in force, without cat_; empty: those seen so far")
    num_columns: tuple[str, ...] = setting((), "numeric columns in force, without num_; empty: those seen so far")
    behavior_pooling: Literal["mean", "last"] = setting(
        "mean", "how the S outputs of the deep layers become one vector a feature"
    )
    recency_buckets: int = setting(
        16, "log-time buckets of a behavior's age, each a learned vector; 0 switches recency off"
    )
    hidden_widths: tuple[int, ...] = setting((256, 64), "widths of the MLP head's hidden layers")
    dropout: float = setting(0.1, "dropout in the head, share of units")
    id_embeddings: bool = setting(True, "whether user_id and item_id enter the head as categorical columns")
    hash_buckets: int = setting(65536, "rows of the hashed embedding of one categorical column")
    cat_width: int = setting(16, "width of the embedding of one categorical column")

    def __post_init__(self) -> None:
        _at_least(self, 0, "recency_buckets")
        _at_least(self, 1, "hash_buckets", "cat_width")
        _share(self, "dropout")


@dataclass(frozen=True)
class TrainingConfig:
    """The daily fine-tune."""

    window_days: int = setting(
        1, "days of impressions trained on, D included; held-out rows follow gate.gate_days later"
    )
    epochs: int = setting(1, "passes over the window")
    batch_size: int = setting(32, "B: impressions a step")
    deep_learning_rate: float = setting(5e-5, "AdamW step size of the deep layers")
    head_learning_rate: float = setting(1e-3, "AdamW step size of the head and of every vector outside the LLM")
    weight_decay: float = setting(0.01, "AdamW weight decay")
    max_gradient_norm: float = setting(1.0, "gradients are clipped to this norm")
    seed: int = setting(17, "seed; each day derives its own from it")
    num_threads: int = setting(0, "torch CPU threads; 0 leaves the choice to torch; equal results need equal counts")

    def __post_init__(self) -> None:
        _at_least(self, 1, "window_days", "epochs", "batch_size")
        _at_least(self, 0, "num_threads")


@dataclass(frozen=True)
class GateConfig:
    """What a day's inputs and its model must satisfy."""

    gate_days: int = setting(7, "days whose held-out rows judge the challenger; they are trained on after as many")
    held_out_share: float = setting(0.2, "share of a day's users whose impressions are held out")
    min_gate_rows: int = setting(200, "held-out rows under which the comparison is recorded as not_enough_evidence")
    max_auc_loss: float = setting(
        0.005, "AUC the challenger may lose: refused when the 95 % interval lies below minus this"
    )
    min_calibration: float = setting(
        0.7, "lower bound of predicted / observed clicks; refused when the 99 % interval lies outside"
    )
    max_calibration: float = setting(1.4, "upper bound of predicted / observed clicks")
    bootstrap_samples: int = setting(1000, "resamples of a bootstrap interval, by user")
    max_quarantined_share: float = setting(
        0.2, "share of a day's landed rows in quarantine above which its inputs are refused"
    )
    min_rows_share: float = setting(
        0.01, "share of the median rows of the last gate.gate_days days under which inputs are refused"
    )

    def __post_init__(self) -> None:
        _at_least(self, 1, "gate_days", "min_gate_rows", "bootstrap_samples")
        _share(self, "held_out_share", "max_quarantined_share", "min_rows_share")


@dataclass(frozen=True)
class PublishConfig:
    """Embeddings of the champion, for serving and batch scoring."""

    publish_days: int = setting(7, "users and items active within so many days, D included, are published")
    keep_versions: int = setting(3, "model versions whose embeddings are kept")

    def __post_init__(self) -> None:
        _at_least(self, 1, "publish_days", "keep_versions")


@dataclass(frozen=True)
class RegistryConfig:
    """MLflow."""

    tracking_uri: str = setting("", "MLflow tracking and registry address; empty: sqlite in the home folder")
    model_name: str = setting("bahe_ctr", "name of the registered model, and of the MLflow experiment")


@dataclass(frozen=True)
class SparkConfig:
    """How Spark runs. Nothing here changes a result."""

    master: str = setting("local[2]", "Spark master")
    driver_memory: str = setting("2g", "memory of the driver's JVM")
    shuffle_partitions: int = setting(2, "partitions of a shuffle; raise it with the size of the log")
    jars: str = setting(
        "", "comma-separated local Delta jars (delta-spark, delta-storage); empty: resolved from Maven Central"
    )


@dataclass(frozen=True)
class AirflowConfig:
    """The embedded Airflow."""

    port: int = setting(8080, "port of the Airflow page on the loopback interface")
    schedule_start: str = setting(
        "2100-01-01", "first day the schedule runs by itself; backfills of earlier days always work"
    )
    retries: int = setting(2, "retries of a task that can heal; a refused gate is never retried")


def _at_least(section: Any, least: int, *names: str) -> None:
    for name in names:
        if getattr(section, name) < least:
            raise ConfigError(f"{type(section).__name__}.{name} must be at least {least}, not {getattr(section, name)}")


def _share(section: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(section, name) < 1:
            raise ConfigError(f"{type(section).__name__}.{name} must be in [0, 1), not {getattr(section, name)}")
