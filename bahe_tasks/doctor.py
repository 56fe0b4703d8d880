"""What the project needs of this machine, checked one by one: `bahe doctor`, and the first part of `make run`.

Each check says in one sentence what it found and, where something is missing, the command that mends it. Reads the
machine and the environment; it is part of the edge. Loads neither torch nor, unless the Delta jars are in question, Spark.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from tempfile import TemporaryFile

from packaging.requirements import Requirement

from bahe_tasks.checkpoint import CheckpointNotFoundError, checkpoint_dir
from bahe_tasks.config import Config, EncoderConfig, SparkConfig
from bahe_tasks.java import java_command

MIN_JAVA = 17
MIN_MEMORY_GB = 4.0
MIN_DISK_GB = 2.0
JAVA_COMMAND = "sudo apt-get install -y openjdk-17-jre-headless"
FETCH_TIMEOUT_S = 300
_FETCH_JARS = (
    "from bahe_tasks.config import SparkConfig; from spark_jobs.session import spark_session, stop_spark_session; "
    "spark_session(SparkConfig(), app_name='bahe doctor'); stop_spark_session()"
)


@dataclass(frozen=True)
class Check:
    """One thing looked at: whether it is all right, what was found, and the command that mends it ("" if none is due)."""

    name: str
    ok: bool
    sentence: str
    command: str = ""


def run_checks(home: Path, config: Config | None) -> list[Check]:
    """Check this machine for the settings of a home folder; for the defaults where it has none yet.

    Delta jars that are not cached are fetched by starting Spark once, which takes up to a minute.
    """
    java = check_java(os.environ.get("JAVA_HOME"))
    return [
        check_python(),
        java,
        check_memory(available_memory_gb()),
        check_disk(home),
        check_home(home) if config else _no_home_yet(home),
        check_packages(),
        check_delta_jars(config.spark if config else SparkConfig(), java_ok=java.ok),
        check_checkpoint(config.encoder if config else EncoderConfig()),
        check_gpu(config.encoder if config else EncoderConfig()),
    ]


def check_python() -> Check:
    """Check that this is Python 3.11."""
    found = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info[:2] == (3, 11)
    command = "" if ok else "sudo apt-get install -y python3.11 python3.11-venv && make clean setup"
    return Check("python", ok, f"Python {found} ({sys.executable}); 3.11 is needed", command)


def check_java(java_home: str | None) -> Check:
    """Check that the java of `java_home`, else of the PATH, is version 17 or newer."""
    java = java_command(java_home)
    if java is None:
        where = f"JAVA_HOME is {java_home}, which has none; " if java_home else ""
        return Check(
            "java", False, f"no java was found ({where}none on the PATH); Spark needs Java {MIN_JAVA}", JAVA_COMMAND
        )
    told = _told_by([java, "-version"])
    release = re.search(r'version "(\d+)(?:\.(\d+))?', told)
    if release is None:
        return Check("java", False, f"{java} does not run; Spark needs Java {MIN_JAVA}", JAVA_COMMAND)
    major = int(release[2] or 0) if release[1] == "1" else int(release[1])  # 1.8 is Java 8
    ok = major >= MIN_JAVA
    return Check("java", ok, f"Java {major} ({java}); {MIN_JAVA} or newer is needed", "" if ok else JAVA_COMMAND)


def check_memory(available_gb: float) -> Check:
    """Check that `available_gb` (GB of 10^9 bytes) of memory are enough."""
    ok = available_gb >= MIN_MEMORY_GB
    command = "" if ok else "close other programs, or lower spark.driver_memory in bahe.yaml"
    return Check(
        "memory", ok, f"{available_gb:.1f} GB of memory are available; {MIN_MEMORY_GB:.0f} GB are needed", command
    )


def available_memory_gb(group: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the memory this process may still take, in GB: the machine's, or what its control group leaves."""
    found = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file() and (match := re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())):
        found = int(match[1]) * 1024
    limit, used = group / "memory.max", group / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
        stat = group / "memory.stat"
        cached = re.search(r"^inactive_file (\d+)$", stat.read_text() if stat.is_file() else "", re.MULTILINE)
        found = min(found, int(text) - int(used.read_text()) + (int(cached[1]) if cached else 0))  # it gives way
    return found / 1e9


def check_disk(folder: Path) -> Check:
    """Check the free space where `folder` is, or will be."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free_gb = shutil.disk_usage(there).free / 1e9
    ok = free_gb >= MIN_DISK_GB
    command = "" if ok else "free some space, or choose a home folder on another disk with --home"
    return Check("disk", ok, f"{free_gb:.1f} GB are free at {there}; {MIN_DISK_GB:.0f} GB are needed", command)


def check_home(folder: Path) -> Check:
    """Check that files can be made in the home folder."""
    try:
        with TemporaryFile(dir=folder):
            return Check("home folder", True, f"{folder} can be written")
    except OSError as error:
        command = "correct its permissions, or choose another with --home"
        return Check("home folder", False, f"the home folder {folder} cannot be written ({error.strerror})", command)


def _no_home_yet(folder: Path) -> Check:
    return Check(
        "home folder",
        True,
        f"{folder / 'bahe.yaml'} does not exist; `bahe init {folder}` makes it, with these defaults",
    )


def check_packages() -> Check:
    """Check that every package the project names is there in a version it allows."""
    wrong = []
    for text in requires("bahe-daily") or []:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(needed.name)
        except PackageNotFoundError:
            wrong.append(f"{needed.name} is missing")
            continue
        if not needed.specifier.contains(found, prereleases=True):
            wrong.append(f"{needed.name} is {found}, not {needed.specifier}")
    sentence = "; ".join(wrong) or "every package is there in its pinned version"
    return Check("packages", not wrong, sentence, "make clean setup" if wrong else "")


def check_delta_jars(spark: SparkConfig, *, java_ok: bool) -> Check:
    """Check that Spark has its two Delta jars: configured, cached, or now fetched by Spark's own resolver."""
    try:
        from spark_jobs.session import DeltaJarsMissingError, cached_delta_jars, configured_jars
    except ImportError as error:
        return Check("delta jars", False, f"Spark's Python packages are not all there: {error}", "make clean setup")
    if spark.jars:
        try:
            configured_jars(spark.jars)
        except DeltaJarsMissingError as error:
            return Check("delta jars", False, str(error), "correct spark.jars in bahe.yaml")
        return Check("delta jars", True, "spark.jars are there")
    if not cached_delta_jars() and java_ok:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run([sys.executable, "-c", _FETCH_JARS], capture_output=True, timeout=FETCH_TIMEOUT_S)
    if jars := cached_delta_jars():
        return Check("delta jars", True, f"the Delta jars are in {Path(jars[0]).parent}")
    command = "connect to the internet and run `bahe doctor` again, or set spark.jars in bahe.yaml to local copies"
    return Check("delta jars", False, "the Delta jars are not cached and could not be downloaded", command)


def _told_by(command: list[str]) -> str:
    """Return what a program prints, on stderr where it prints nothing on stdout; "" where it fails or is none for this machine."""
    try:
        told = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError:
        return ""
    return "" if told.returncode else told.stdout or told.stderr


def check_checkpoint(encoder: EncoderConfig) -> Check:
    """Check that the language model's files are there."""
    try:
        return Check("checkpoint", True, f"{encoder.checkpoint} is in {checkpoint_dir(encoder.checkpoint)}")
    except CheckpointNotFoundError as error:
        return Check("checkpoint", False, str(error), "correct encoder.checkpoint in bahe.yaml, or run `make setup`")


def check_gpu(encoder: EncoderConfig) -> Check:
    """Tell which GPUs there are; it is a fault only where encoder.device asks for one."""
    tool = shutil.which("nvidia-smi")
    query = [tool or "", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    told = _told_by(query).strip() if tool else ""
    ok = bool(told) or encoder.device != "cuda"
    sentence = "; ".join(told.splitlines()) if told else "no GPU was found; torch computes on the CPU"
    return Check("gpu", ok, sentence, "" if ok else "set encoder.device to auto in bahe.yaml")
