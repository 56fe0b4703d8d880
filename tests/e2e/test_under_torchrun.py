"""A day under torchrun, with two of its agents as two hosts have: one process runs the day, the other trains and encodes with it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import FIRST, Log, small_config

from bahe_tasks.engines.inline import run_day
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.model_registry import connect, local_model_folder, version_of

pytestmark = [pytest.mark.e2e, pytest.mark.spark, pytest.mark.usefixtures("one_thread")]


def torchrun(*arguments: str | Path, agents: int = 1, agent: int = 0, port: int = 0) -> subprocess.Popen:
    """Start an agent of torchrun with one process of `bahe`, or with two where it is the only one."""
    where = ["--standalone", "--nproc-per-node=2"]
    if agents > 1:
        where = [f"--nnodes={agents}", f"--node-rank={agent}", "--master-addr=localhost", f"--master-port={port}"]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *where, Path(sys.executable).with_name("bahe"), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_day_of_two_hosts_is_that_of_two_processes_of_one(tmp_path, spark):
    for name in ("launched", "own"):
        (tmp_path / name).mkdir()
    launched, own = small_config(tmp_path / "launched"), small_config(tmp_path / "own")
    Log(launched.landing_dir).ordinary_day(FIRST)
    shutil.copytree(launched.landing_dir, own.landing_dir)
    with closing(socket.create_server(("localhost", 0))) as server:
        port = server.getsockname()[1]
    verb = ("run-day", str(FIRST), "--home", launched.home, "--json")
    agents = [torchrun(*verb, agents=2, agent=n, port=port) for n in range(2)]
    (answer, _), (silence, _) = told = [agent.communicate(timeout=400) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], told
    assert (json.loads(answer)["state"], silence) == ("done", "")

    assert run_day(FIRST, replace(own, training=replace(own.training, num_processes=2))).state == "done"
    embeddings, models = [], []
    for config in (launched, own):
        embeddings.append(read_table(config.tables_dir, "behavior_embeddings").sort_by("behavior_key"))
        registry = connect(config)
        models.append((local_model_folder(registry, 1) / "model.safetensors").read_bytes())
        assert registry.client.get_run(version_of(registry, 1).run_id).data.tags["processes"] == "2"
    assert embeddings[0].equals(embeddings[1])
    assert models[0] == models[1]


def test_the_tasks_of_airflow_do_not_run_under_torchrun(tmp_path):
    verb = ("backfill", str(FIRST), str(FIRST), "--engine", "airflow", "--home", small_config(tmp_path).home)
    agent = torchrun(*verb)
    _, told = agent.communicate(timeout=200)
    assert agent.returncode == 1  # whatever the status of the verb
    assert "use --engine inline under it" in told
    assert "exitcode  : 2" in told
