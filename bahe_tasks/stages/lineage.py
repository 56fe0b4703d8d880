"""What a model version was made from, beside its data: code revision and table versions."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path

from bahe_tasks.config import Config
from bahe_tasks.stores.delta_tables import table_version

_READ_TABLES = (
    "behavior_events", "items", "impressions", "user_sequences", "atomic_behaviors", "behavior_embeddings",
)  # fmt: skip


def table_versions(config: Config, names: Sequence[str] = _READ_TABLES) -> dict[str, int]:
    """Return the Delta version of each of these tables, those that training reads, that is there."""
    versions = {name: table_version(config.tables_dir, name) for name in names}
    return {name: version for name, version in versions.items() if version is not None}


def code_revision() -> str:
    """Return the git commit of the running code, with "+changes" when files differ from it, or the package version.

    A package that is installed inside somebody's repository is not of its commits.
    """
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        return _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        pass
    try:
        return f"bahe-daily {package_version('bahe-daily')}"
    except PackageNotFoundError:
        return "unknown"


def _git(*arguments: str) -> str:
    """Return what git says of the repository around this file. Raises `CalledProcessError` where there is none."""
    here = Path(__file__).resolve().parent
    return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
