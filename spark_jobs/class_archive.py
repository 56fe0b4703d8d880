"""An archive of the classes that Spark's JVM loads: mapped into a new JVM, it starts and runs its first job in about half the time.

    python -m spark_jobs.class_archive

makes the one of this installation of Java and Spark where there is none yet, which takes about a minute (`make setup` does
it) and 150 MB of ~/.cache/bahe. Every session of this user then starts with it, and without one as Spark always does. Those
that no session started with for a month, of installations that are gone, are deleted when one is made.

Unusual: the JVM ends with an error of the machine on half of an archive, and starts without one that is of other jars. So an
archive gets its name after a JVM that may not start without it has started.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any, cast

import pyspark

from bahe_tasks.java import java_command

_MAKE, _USE = "-XX:ArchiveClassesAtExit=", "-XX:SharedArchiveFile="
_ONLY_WITH_IT = "-Xshare:on"
_NOTHING_ON_STDOUT = "-Xlog:disable -Xlog:all=warning:stderr"
_RUN = "from spark_jobs.class_archive import run_and_end; run_and_end({options!r})"
_LONGEST_S = 300
_UNUSED_S = 30 * 86400


class ArchiveError(RuntimeError):
    """The classes could not be archived."""


def archive_file() -> Path | None:
    """Return where the archive is, or would be; `None` without Java."""
    java = java_command(os.environ.get("JAVA_HOME"))
    if java is None:
        return None
    binary, jars = Path(java).resolve(), Path(pyspark.__file__).parent / "jars"
    # The JVM uses an archive with the very files it was made of.
    made_of = sorted((jar.name, jar.stat().st_mtime_ns) for jar in jars.glob("*.jar"))
    told_by = [binary, binary.stat().st_mtime_ns, jars, made_of]
    name = sha256("\x00".join(map(str, told_by)).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "bahe" / f"spark-{name}.jsa"


def with_archive(jvm_options: str) -> str:
    """Return the options of a JVM with the one that uses the archive.

    As they are where there is no archive, where Spark would not understand its name, or where they name one themselves.
    """
    file = archive_file()
    if file is None or not os.access(file, os.R_OK) or set(str(file)) & set(" \"'\\") or "Archive" in jvm_options:
        return jvm_options
    with suppress(OSError):  # of another user's, say
        os.utime(file)
    return f"{_USE}{file} {_NOTHING_ON_STDOUT} {jvm_options}"


def make_archive() -> Path:
    """Make the archive where there is none that a JVM starts with, and return its file. Raises `ArchiveError`."""
    file = archive_file()
    if file is None:
        raise ArchiveError("no java was found")
    with suppress(ArchiveError):
        if file.is_file():
            _start_spark(f"{_USE}{file} {_ONLY_WITH_IT}")
            return file
    unfinished = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _start_spark(f"{_MAKE}{unfinished}")
        _start_spark(f"{_USE}{unfinished} {_ONLY_WITH_IT}")
        unfinished.replace(file)
        _delete_unused(file.parent)
    except OSError as error:
        raise ArchiveError(str(error)) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return file


def _delete_unused(folder: Path) -> None:
    for archive in folder.glob("spark-*"):  # unfinished ones of killed processes too
        with suppress(OSError):  # another process deletes too
            if time() - archive.stat().st_mtime > _UNUSED_S:
                archive.unlink()


def run_and_end(jvm_options: str) -> None:
    """Start Spark with these options beside those of one day, run a job, and wait for the JVM's end: it archives as it ends."""
    from bahe_tasks.config import SparkConfig
    from spark_jobs.session import FOR_ONE_DAY, spark_session, stop_spark_session
    from spark_jobs.tasks import run_in_tasks

    spark = spark_session(SparkConfig(jvm_options=f"{jvm_options} {FOR_ONE_DAY}"), app_name="bahe class archive")
    for _ in range(2):
        run_in_tasks(spark, lambda numbers: ((number,) for number in numbers), 1, "number int")
    jvm = cast(Any, spark.sparkContext._gateway).proc
    stop_spark_session()
    jvm.stdin.close()
    jvm.wait(_LONGEST_S)


def _start_spark(jvm_options: str) -> None:
    """Start Spark once. Raises `ArchiveError`."""
    command = [sys.executable, "-c", _RUN.format(options=jvm_options)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_LONGEST_S)
    except subprocess.TimeoutExpired as error:
        raise ArchiveError(f"Spark did not end within {_LONGEST_S} s") from error
    except subprocess.CalledProcessError as error:
        told = error.stderr.strip().splitlines() or [f"Spark ended with exit code {error.returncode}"]
        raise ArchiveError(told[-1]) from error


if __name__ == "__main__":
    try:
        print(f"Spark starts from {make_archive()}")
    except ArchiveError as error:
        sys.exit(f"the classes of Spark's JVM were not archived, so it will start more slowly: {error}")
