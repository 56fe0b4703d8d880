"""Where the Java is that Spark runs on."""

from __future__ import annotations

import shutil
from pathlib import Path


def java_command(java_home: str | None) -> str | None:
    """Return the java of `java_home`, else of the PATH, `None` without either."""
    own = Path(java_home) / "bin" / "java" if java_home else None
    return str(own) if own and own.is_file() else shutil.which("java")
