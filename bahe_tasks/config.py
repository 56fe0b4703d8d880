"""Settings: frozen dataclasses read from `bahe.yaml`, each with its meaning, unit and default in one place.

The defaults below are the only ones. A file holds what differs; an unknown key is an error that names the nearest
known one. Sections that decide a result are part of the fingerprint of the stages they steer; sections that only
decide how it is computed (`spark`, `airflow`) are not.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml


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


@dataclass(frozen=True)
class Config:
    """All settings of one home folder."""

    home: Path
    landing: LandingConfig = field(default_factory=LandingConfig)
    sequences: SequencesConfig = field(default_factory=SequencesConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    publish: PublishConfig = field(default_factory=PublishConfig)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    spark: SparkConfig = field(default_factory=SparkConfig)
    airflow: AirflowConfig = field(default_factory=AirflowConfig)

    @property
    def tables_dir(self) -> Path:
        return self.home / "tables"

    @property
    def landing_dir(self) -> Path:
        return self.home / self.landing.folder  # an absolute folder stands for itself

    @property
    def tracking_uri(self) -> str:
        return self.registry.tracking_uri or f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"


SECTIONS: dict[str, type] = {
    "landing": LandingConfig,
    "sequences": SequencesConfig,
    "encoder": EncoderConfig,
    "model": ModelConfig,
    "training": TrainingConfig,
    "gate": GateConfig,
    "publish": PublishConfig,
    "registry": RegistryConfig,
    "spark": SparkConfig,
    "airflow": AirflowConfig,
}


def load_config(home: Path, *, landing_dir: str | None = None) -> Config:
    """Read HOME/bahe.yaml. `landing_dir` (the value of BAHE_LANDING) replaces `landing.folder`.

    Raises `ConfigError` when the home folder has no bahe.yaml, or it holds an unknown key or a bad value.
    """
    home = home.expanduser().resolve()
    path = home / "bahe.yaml"
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; make a home folder with `bahe init {home}`")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if landing_dir:
        document = {
            **document,
            "landing": {**(document.get("landing") or {}), "folder": str(Path(landing_dir).resolve())},
        }
    return config_from(document, home=home, where=str(path))


def config_from(document: Any, *, home: Path, where: str = "the configuration") -> Config:
    """Build a `Config` from nested mappings of section → setting → value."""
    if not isinstance(document, dict):
        raise ConfigError(f"{where} must be a mapping of sections")
    _refuse_unknown(document, SECTIONS, where)
    sections = {name: _section(SECTIONS[name], values or {}, f"{where}: {name}") for name, values in document.items()}
    return Config(home=home, **sections)


def render_config() -> str:
    """Return a bahe.yaml that holds every setting, commented out, with its meaning and default."""
    lines = ["# Settings of this home folder. A line that is commented out shows the default.", ""]
    for name, section in SECTIONS.items():
        lines += [f"# {section.__doc__}", f"{name}:"]
        for item in dataclasses.fields(section):
            value = yaml.safe_dump(_plain(item.default), default_flow_style=True).removesuffix("\n...\n").strip()
            lines += [f"  # {item.metadata['meaning']}", f"  # {item.name}: {value}"]
        lines.append("")
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _section(section: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a mapping of settings")
    kinds = get_type_hints(section)
    _refuse_unknown(values, kinds, where)
    return section(**{key: _checked(value, kinds[key], f"{where}.{key}") for key, value in values.items()})


def _refuse_unknown(given: dict[str, Any], known: dict[str, Any], where: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"
            raise ConfigError(f"{where}: unknown key {key!r}{hint}")


def _checked(value: Any, kind: Any, where: str) -> Any:
    """Return `value` as `kind`: str, int, float, bool, a Literal, or a tuple of one of them."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{where} must be one of {', '.join(get_args(kind))}, not {value!r}")
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where} must be a list, not {value!r}")
        return tuple(_checked(item, get_args(kind)[0], where) for item in value)
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as text
        except ValueError:
            pass
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{where} must be of type {kind.__name__}, not {value!r}")


def _at_least(section: Any, least: int, *names: str) -> None:
    for name in names:
        if getattr(section, name) < least:
            raise ConfigError(f"{type(section).__name__}.{name} must be at least {least}, not {getattr(section, name)}")


def _share(section: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(section, name) < 1:
            raise ConfigError(f"{type(section).__name__}.{name} must be in [0, 1), not {getattr(section, name)}")
