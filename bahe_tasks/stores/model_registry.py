"""The MLflow registry, read: where it is, which versions it holds, which one is champion, where a model's files lie.

Everything that decides is a tag set together with the version. A version without a fingerprint was not made by this
project, or not made whole: it does not exist to any reader.

Unusual: MLflow is imported inside the functions, because importing it takes seconds, and its process-wide tracking
address is set by `connect`, because MLflow resolves `models:/` addresses with it even inside an explicit client.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast, get_args
from urllib.parse import urlsplit

from bahe_tasks.config import Config
from bahe_tasks.data_interval import parse_day
from bahe_tasks.stores.file_lock import one_at_a_time
from bahe_tasks.stores.home_database import make_database, wait_for_locks
from bahe_tasks.stores.moved_home import address_now, follow_home, is_of_a_home
from bahe_tasks.stores.promotion_rules import GateState, ModelVersion, parent_for

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion
    from mlflow.store.entities import PagedList
    from mlflow.tracking import MlflowClient

Entity = TypeVar("Entity")

CHAMPION = "champion"
CHALLENGER = "challenger"

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_PAGE = 1000
_DAYS_ASKED = 3
"""Single days that a parent is looked for in: of a log with a model a day, and a refused one now and then."""


class VersionNotFoundError(LookupError):
    """A version number the registry does not hold."""


@dataclass(frozen=True)
class Registry:
    """An open registry: the client, the registered model, its experiment, and the registry's folder in the home.

    `artifacts` is the address of models in the home, None where the registry is not the home's own; `artifacts_were` is the
    one its database names, another one in a home that was moved or copied.
    """

    client: MlflowClient
    tracking_uri: str
    model_name: str
    experiment_id: str
    folder: Path
    artifacts: str | None = None
    artifacts_were: str | None = None

    def follow_home(self) -> None:
        """Make the database name models where the home is now. For whoever is about to write a model."""
        if self.artifacts:
            with one_at_a_time(self.folder / ".lock"):
                follow_home(self.folder / "mlflow.db", self.artifacts)


def connect(config: Config) -> Registry:
    """Open the registry of a home folder, creating its database and experiment the first time.

    Sets this process's MLflow address and switches MLflow's telemetry and progress bars off. Several processes may connect
    at once: a local database is created and migrated by one of them, the others wait. One killed meanwhile does no harm.
    """
    os.environ.update(_QUIET)
    import mlflow
    from mlflow.tracking import MlflowClient

    for name in ("mlflow.store.db.utils", "mlflow.tracking", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    folder = config.home.resolve() / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    uri = replace(config, home=config.home.resolve()).tracking_uri  # a relative one depends on the working directory
    served = urlsplit(uri).scheme in ("http", "https") or uri.startswith("databricks")
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    wait_for_locks()
    with one_at_a_time(folder / ".lock"):
        if not config.registry.tracking_uri:
            make_database(folder / "mlflow.db")
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        name = config.registry.model_name
        experiment = client.get_experiment_by_name(name)
        location = None if served else (folder / "artifacts").as_uri()
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(name, location)
    own = None if config.registry.tracking_uri else location
    were = experiment.artifact_location if own and experiment and is_of_a_home(experiment.artifact_location) else own
    return Registry(client, uri, name, experiment_id, folder, artifacts=own, artifacts_were=were)


def versions(registry: Registry, **tags: str) -> list[ModelVersion]:
    """Return every version with a fingerprint, or those of them that have these tags, by version number.

    A version costs about a millisecond, so what is asked each day names a tag that few versions have.
    """
    asked = " AND ".join([f"name = '{registry.model_name}'", *(f"tags.{name} = '{tags[name]}'" for name in tags)])
    entries = _on_all_pages(registry.client.search_model_versions, asked)
    found = [_read(entry) for entry in entries if entry.tags.get("input_fingerprint")]
    return sorted(found, key=lambda version: version.version)


def parent_of(registry: Registry, day: date) -> ModelVersion | None:
    """Return `parent_for` of all versions and `day`. The days just before are asked for first: mostly it is of one of them."""
    for days_before in range(1, _DAYS_ASKED + 1):
        parent = parent_for(versions(registry, day=str(day - timedelta(days=days_before))), day)
        if parent is not None:
            return parent
    return parent_for(versions(registry), day)


def tags_of_all_versions(registry: Registry) -> list[dict[str, str]]:
    """Return the tags of every version of every registered model: other lineages may read the same tables."""
    return [dict(entry.tags) for entry in _on_all_pages(registry.client.search_model_versions)]


def is_registered(registry: Registry, run_id: str, model_id: str) -> bool:
    """Tell whether a version of any registered model is of this run or logged model. Asks for all versions."""
    return any(
        run_id == entry.run_id or model_id == entry.model_id or model_id in str(entry.source)
        for entry in _on_all_pages(registry.client.search_model_versions)
    )


def version_of(registry: Registry, version: int) -> ModelVersion:
    """Return one version. Raises `VersionNotFoundError`."""
    from mlflow.exceptions import MlflowException

    try:
        found = registry.client.get_model_version(registry.model_name, str(version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        found = None
    if found is None or not found.tags.get("input_fingerprint"):
        raise VersionNotFoundError(f"{registry.model_name} has no version {version} in {registry.tracking_uri}")
    return _read(found)


def is_withdrawn(registry: Registry, version: int) -> bool:
    """Tell whether a version was withdrawn, or deleted on MLflow's page."""
    try:
        return version_of(registry, version).withdrawn
    except VersionNotFoundError:
        return True


def champion(registry: Registry) -> ModelVersion | None:
    """Return the version the alias `champion` stands on, `None` when nothing has been promoted."""
    number = aliases(registry).get(CHAMPION)
    return None if number is None else version_of(registry, number)


def aliases(registry: Registry) -> dict[str, int]:
    """Return each alias and the version it stands on."""
    from mlflow.exceptions import MlflowException

    try:
        model = registry.client.get_registered_model(registry.model_name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    return {alias: int(number) for alias, number in model.aliases.items()}


def models_with_champion(registry: Registry) -> list[str]:
    """Return the names of all registered models that have a champion: each is a lineage of its own."""
    models = _on_all_pages(registry.client.search_registered_models)
    return sorted(model.name for model in models if CHAMPION in model.aliases)


def local_model_folder(registry: Registry, version: int) -> Path:
    """Return a folder with the version's model.safetensors and model_spec.json.

    Where the artifacts lie on this machine it is their own folder, not to be written to; else they are downloaded
    once, and kept: another process may be reading any of them, so nothing here removes one. Raises
    `VersionNotFoundError`.
    """
    version_of(registry, version)
    source = registry.client.get_model_version_download_uri(registry.model_name, str(version))
    if registry.artifacts and registry.artifacts_were:
        source = address_now(source, registry.artifacts_were, registry.artifacts)
    if urlsplit(source).scheme in ("", "file"):
        from mlflow.utils.file_utils import local_file_uri_to_path

        return Path(local_file_uri_to_path(source)) / "artifacts"
    return _downloaded(registry, version, source) / "artifacts"


def _downloaded(registry: Registry, version: int, source: str) -> Path:
    """Fetch a version's files once; a download that was cut short is never taken for a whole one.

    `source` tells versions of one number apart: of another registry, or of a model that was deleted and made anew.
    """
    from mlflow.artifacts import download_artifacts

    downloads_dir = registry.folder / "downloads"
    name = f"{registry.model_name}-{version}-{sha256(source.encode()).hexdigest()[:16]}"
    whole = downloads_dir / name
    if not whole.is_dir():
        partial = downloads_dir / f".{name}.{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        address = f"models:/{registry.model_name}/{version}"
        download_artifacts(artifact_uri=address, dst_path=str(partial), tracking_uri=registry.tracking_uri)
        try:
            partial.rename(whole)
        except OSError:
            shutil.rmtree(partial)  # another process was first
    return whole


def _on_all_pages(search: Callable[..., PagedList[Entity]], asked: str | None = None) -> Iterator[Entity]:
    """Yield what a search finds, page after page."""
    page = search(asked, max_results=_PAGE)
    yield from page
    while page.token:
        page = search(asked, max_results=_PAGE, page_token=page.token)
        yield from page


def _read(entry: MlflowVersion) -> ModelVersion:
    tags = entry.tags
    gate = tags.get("gate", "pending")
    return ModelVersion(
        version=int(entry.version),
        day=parse_day(tags["day"]),
        fingerprint=tags["input_fingerprint"],
        run_id=entry.run_id or "",
        encoder_version=tags.get("encoder_version", ""),
        gate=cast(GateState, gate if gate in get_args(GateState) else "errored"),
        parent_version=int(tags["parent_version"]) if tags.get("parent_version") else None,
        parent_fingerprint=tags.get("parent_fingerprint") or None,
        superseded=bool(tags.get("superseded_by")),
        withdrawn=bool(tags.get("withdrawn")),
        reason=tags.get("withdrawn") or tags.get("gate_reason", ""),
        tags=dict(tags),
    )
