"""The sections of `bahe.yaml` about data, gate and engines; those about the model are in `config_model`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from bahe_tasks.config_checks import ConfigError, at_least, setting, share
from bahe_tasks.data_interval import InvalidDayError, parse_day

_SPARK_MASTER = re.compile(r"local(-cluster)?(\[[\d*, ]+\])?|(?!local)\S+")
_SPARK_MEMORY = re.compile(r"\d+([kmgt]b?)?", re.IGNORECASE)


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
        at_least(self, 0, "late_days", "label_delay_s", "label_horizon_days")


@dataclass(frozen=True)
class SequencesConfig:
    """Point-in-time user histories."""

    history_days: int = setting(
        90,
        "days of landed events that a history is built from, up to D, or with history_as_of day_start up to the day before",
    )
    max_behaviors_per_sequence: int = setting(50, "S: newest behaviors a model reads of one text feature")
    max_behaviors_by_feature: dict[str, int] = setting({}, "S of single text features by name, none above the S above")
    history_as_of: Literal["impression", "day_start"] = setting(
        "impression",
        "where a history ends: before its impression, or at the start of its day (UTC) with what had landed by then, as a user "
        "embedding that is published daily serves; then all of a user's impressions of a day share one pass of the deep layers",
    )
    max_events_per_sequence: int = setting(
        1000,
        "behaviors stored for one user, feature and day; if its impressions read more, each keeps its newest, and what "
        "is left out is counted; older ones that another impression of the day keeps may stand in their place",
    )

    def __post_init__(self) -> None:
        at_least(self, 1, "history_days", "max_behaviors_per_sequence", "max_events_per_sequence")
        if self.max_events_per_sequence < self.max_behaviors_per_sequence:
            raise ConfigError("max_events_per_sequence must not be below max_behaviors_per_sequence")
        for feature, longest in self.max_behaviors_by_feature.items():
            if not 1 <= longest <= self.max_behaviors_per_sequence:
                raise ConfigError(
                    f"max_behaviors_by_feature.{feature} must be between 1 and "
                    f"max_behaviors_per_sequence ({self.max_behaviors_per_sequence}), not {longest}"
                )

    def landed_days(self, day: date) -> tuple[date, date]:
        """Return the first and the last dt of the events that histories of a day are built from."""
        last = day if self.history_as_of == "impression" else day - timedelta(days=1)
        return last - timedelta(days=self.history_days - 1), last

    def behaviors_read(self, feature: str) -> int:
        """Return S of one text feature."""
        return self.max_behaviors_by_feature.get(feature, self.max_behaviors_per_sequence)


@dataclass(frozen=True)
class NumbersConfig:
    """Running sums of what is known of an impression's user, item, both and title words."""

    as_of: Literal["impression", "day_start"] = setting(
        "impression",
        "as of when an impression's sums are: when it was shown, or the start of its day (UTC), what was published the evening "
        "before; then a fact counts from the end of the day whose run counts it",
    )


@dataclass(frozen=True)
class GateConfig:
    """What a day's inputs and its model must satisfy."""

    gate_days: int = setting(
        7,
        "days whose held-out rows judge the challenger; they are trained on after as many (raised in a lineage: rows that its "
        "models were trained on judge for as many days as it was raised by, and are trained on again)",
    )
    held_out_share: float = setting(
        0.2,
        "share of a day's users whose impressions are held out (raised in a lineage: rows of the last gate_days that its models were "
        "trained on judge too)",
    )
    min_gate_rows: int = setting(200, "held-out rows under which the comparison is recorded as not_enough_evidence")
    min_gate_users: int = setting(
        5,
        "users of those rows under which it is so too: the intervals draw users, and of one or two they are narrow whatever is true",
    )
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
        at_least(self, 1, "gate_days", "min_gate_rows", "min_gate_users", "bootstrap_samples")
        share(self, "held_out_share", "max_quarantined_share", "min_rows_share")
        if self.min_calibration > self.max_calibration:
            raise ConfigError(
                f"min_calibration must be at most max_calibration, not {self.min_calibration} and {self.max_calibration}"
            )


@dataclass(frozen=True)
class PublishConfig:
    """Embeddings of the champion, for serving and batch scoring."""

    publish_days: int = setting(
        28, "users and items active within so many days, D included, are published; `bahe score` looks the others up"
    )
    keep_versions: int = setting(3, "model versions whose embeddings are kept")

    def __post_init__(self) -> None:
        at_least(self, 1, "publish_days", "keep_versions")


@dataclass(frozen=True)
class RegistryConfig:
    """MLflow."""

    tracking_uri: str = setting("", "MLflow tracking and registry address; empty: sqlite in the home folder")
    model_name: str = setting("bahe_ctr", "name of the registered model, and of the MLflow experiment")

    def __post_init__(self) -> None:
        if not self.model_name.strip() or set(self.model_name) & set("/:'\"`\\"):
            raise ConfigError(f"model_name must be a name without slash, colon and quotes, not {self.model_name!r}")


@dataclass(frozen=True)
class SparkConfig:
    """How Spark runs. Nothing here changes a result."""

    master: str = setting("local[2]", "Spark master")
    driver_memory: str = setting("2g", "memory of the driver's JVM")
    driver_rows: int = setting(
        1_000_000,
        "rows of a day, about 6 kB each where histories are short, that the driver derives tables of after Spark has "
        "settled them; of more Spark runs the same steps for buckets of rows, several at once",
    )
    jvm_options: str = setting(
        "", "options of Spark's JVM; empty: quick to start, or for a backfill of several days quick to run"
    )
    jars: str = setting(
        "", "comma-separated local Delta jars (delta-spark, delta-storage); empty: resolved from Maven Central"
    )

    def __post_init__(self) -> None:
        at_least(self, 0, "driver_rows")
        if not _SPARK_MEMORY.fullmatch(self.driver_memory):
            raise ConfigError(f"driver_memory must be a size such as 4g or 900m, not {self.driver_memory!r}")
        if not _SPARK_MASTER.fullmatch(self.master):
            raise ConfigError(f"master must be local[N], spark://HOST:PORT, k8s://URL or yarn, not {self.master!r}")


@dataclass(frozen=True)
class AirflowConfig:
    """The embedded Airflow."""

    port: int = setting(8080, "port of the Airflow page on the loopback interface")
    schedule_start: str = setting(
        "2100-01-01",
        "first day that runs by itself once it is over, while `bahe ui` runs; days missed since then run first, oldest first. Earlier days can always be backfilled",
    )
    wait_for: tuple[str, ...] = setting(
        (),
        "files in the landing folder that say a day has landed, {day} being the day, such as impressions/dt={day}/_SUCCESS; a day that runs by itself waits for them until 24 h after its end",
    )
    retries: int = setting(2, "retries of a task that can heal; a refused gate is never retried")

    def __post_init__(self) -> None:
        at_least(self, 0, "retries")
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"port must be between 1 and 65535, not {self.port}")
        try:
            parse_day(self.schedule_start)
        except InvalidDayError as error:
            raise ConfigError(f"schedule_start: {error}") from error
        for path in self.wait_for:
            if "{day}" not in path:
                raise ConfigError(f"wait_for: {path!r} has no {{day}} and would be the same file every day")

    def paths_of(self, day: date) -> list[str]:
        """Return the files, relative to the landing folder, that say `day` has landed."""
        return [path.replace("{day}", day.isoformat()) for path in self.wait_for]
