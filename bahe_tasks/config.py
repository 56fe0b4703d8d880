"""Settings: frozen dataclasses read from `bahe.yaml`, each with its meaning, unit and default in one place.

The defaults below are the only ones. A file holds what differs; an unknown key is an error that names the nearest
known one. Sections that decide a result are part of the fingerprint of the stages they steer; sections that only
decide how it is computed (`spark`, `airflow`) are not.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, get_args, get_origin, get_type_hints

import yaml

from bahe_tasks.config_checks import ConfigError
from bahe_tasks.config_model import EncoderConfig, ModelConfig, TrainingConfig
from bahe_tasks.config_sections import (
    AirflowConfig,
    GateConfig,
    LandingConfig,
    NumbersConfig,
    PublishConfig,
    RegistryConfig,
    SequencesConfig,
    SparkConfig,
)

__all__ = [
    "SECTIONS",
    "AirflowConfig",
    "Config",
    "ConfigError",
    "EncoderConfig",
    "GateConfig",
    "LandingConfig",
    "ModelConfig",
    "NumbersConfig",
    "PublishConfig",
    "RegistryConfig",
    "SequencesConfig",
    "SparkConfig",
    "TrainingConfig",
    "config_from",
    "home_folder",
    "load_config",
    "plain",
    "render_config",
]


@dataclass(frozen=True)
class Config:
    """All settings of one home folder."""

    home: Path
    landing: LandingConfig = field(default_factory=LandingConfig)
    sequences: SequencesConfig = field(default_factory=SequencesConfig)
    numbers: NumbersConfig = field(default_factory=NumbersConfig)
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
        return self.home / _expanded(Path(self.landing.folder))  # an absolute folder stands for itself

    @property
    def tracking_uri(self) -> str:
        return self.registry.tracking_uri or f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}?timeout={LOCK_TIMEOUT_S}"


LOCK_TIMEOUT_S = 60
"""How long a process waits for another one that has the home's MLflow database locked."""

_NO_PART_OF_A_NAME = re.compile(r"[#?*\[\]{^|\\]|\$(?=\w)|%[0-9A-Fa-f]{2}")
"""Parts of an address, a pattern or a variable. A landing folder may have them: only pyarrow opens its files."""

SECTIONS = {item.name: cast(type, item.default_factory) for item in dataclasses.fields(Config) if item.name != "home"}
"""The type of each section of bahe.yaml."""


def _expanded(path: Path) -> Path:
    """Return a path with the home folder of a user in place of `~`. Raises `ConfigError` where there is no such user."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path} names a user that this machine does not know") from error


def home_folder(path: Path) -> Path:
    """Return the whole path of a home folder. Raises `ConfigError` where no tables can be kept at it."""
    home = _expanded(path).resolve()
    if found := _NO_PART_OF_A_NAME.search(str(home)):
        raise ConfigError(
            f"the home folder {home} has {found[0]} in its path, which Delta, Spark or Great Expectations take for more than "
            "a part of a name: choose another"
        )
    return home


def load_config(home: Path, *, landing_dir: str | None = None) -> Config:
    """Read HOME/bahe.yaml. `landing_dir` (the value of BAHE_LANDING) replaces `landing.folder`.

    Raises `ConfigError` when the home folder has no bahe.yaml, or it holds an unknown key or a bad value.
    """
    home = home_folder(home)
    path = home / "bahe.yaml"
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; make a home folder with `bahe init {home}`")
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    config = config_from({} if document is None else document, home=home, where=str(path))
    if landing_dir:
        landing = replace(config.landing, folder=str(_expanded(Path(landing_dir)).resolve()))
        config = replace(config, landing=landing)
    return config


class _Loader(yaml.SafeLoader):
    """YAML in which a day is text, with quotes or without, and a key stands once.

    Of two sections of one name the first would be dropped without a word.
    """

    yaml_implicit_resolvers: ClassVar = {  # type: ignore[misc]
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [name.value for name, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(problem=f"{name!r} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def config_from(document: Any, *, home: Path, where: str = "the configuration") -> Config:
    """Build a `Config` from nested mappings of section → setting → value."""
    if not isinstance(document, dict):
        raise ConfigError(f"{where} must be a mapping of sections")
    _refuse_unknown(document, SECTIONS, where)
    sections = {name: _section(SECTIONS[name], values, f"{where}: {name}") for name, values in document.items()}
    return Config(home=home, **sections)


def render_config(config: Config | None = None) -> str:
    """Return a bahe.yaml that documents every setting.

    Without `config` every line is commented out and shows the default. With it every line is in force, and one that
    differs names the default.
    """
    lines = [] if config else ["# Settings of this home folder. A line that is commented out shows the default.", ""]
    for name, section in SECTIONS.items():
        lines += [f"# {section.__doc__}", f"{name}:"]
        default = section()
        for item in dataclasses.fields(section):
            usual = _yaml(getattr(default, item.name))
            value = _yaml(getattr(getattr(config, name), item.name)) if config else usual
            mark, remark = ("" if config else "# "), ("" if value == usual else f"  # default: {usual}")
            lines += [f"  # {item.metadata['meaning']}", f"  {mark}{item.name}: {value}{remark}"]
        lines.append("")
    return "\n".join(lines)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(plain(value), default_flow_style=True, width=math.inf).removesuffix("\n...\n").strip()


def plain(value: Any) -> Any:
    """Return a setting's value as YAML and JSON have it: a tuple becomes a list."""
    return list(value) if isinstance(value, tuple) else value


def _section(section: type, values: Any, where: str) -> Any:
    values = {} if values is None else values  # all its lines are commented out
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a mapping of settings")
    kinds = get_type_hints(section)
    _refuse_unknown(values, kinds, where)
    settings = {key: _checked(value, kinds[key], f"{where}.{key}") for key, value in values.items()}
    try:
        return section(**settings)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from error


def _refuse_unknown(given: dict[str, Any], known: dict[str, Any], where: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"
            raise ConfigError(f"{where}: unknown key {key!r}{hint}")


def _checked(value: Any, kind: Any, where: str) -> Any:
    """Return `value` as `kind`: str, int, float, bool, a Literal, or a tuple or mapping by name of one of them."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{where} must be one of {', '.join(get_args(kind))}, not {value!r}")
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where} must be a list, not {value!r}")
        return tuple(_checked(item, get_args(kind)[0], where) for item in value)
    if get_origin(kind) is dict:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise ConfigError(f"{where} must be a mapping of names, not {value!r}")
        return {name: _checked(item, get_args(kind)[1], f"{where}.{name}") for name, item in value.items()}
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 1e-3 as text
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{where} must be of type {kind.__name__}, not {value!r}")
