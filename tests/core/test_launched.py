"""Processes that torchrun started do what the first one shares. Each test is one run of torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_encode_chunks import ENCODER, TEXTS
from test_train_processes import TRAINING

from bahe_tasks.core.ctr_model import new_model
from bahe_tasks.core.encode_chunks import chunks_of
from bahe_tasks.core.encoder import encode_texts
from bahe_tasks.core.launched import LostProcessesError, run_shared
from bahe_tasks.core.train_processes import process_count, train_in_processes

CPU = torch.device("cpu")
_PROGRAM = """
import sys
from pathlib import Path
import test_launched
from bahe_tasks.commands.ranks import run_by_rank
run_by_rank(lambda: getattr(test_launched, sys.argv[1])(Path(sys.argv[2])))
"""


def torchrun(verb, folder):
    """Run a function of this module as the command line runs a verb, in the first of two processes."""
    (folder / "program.py").write_text(_PROGRAM)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*command, folder / "program.py", verb.__name__, folder], env=environment, capture_output=True, text=True
    )


class NamedError(ValueError):
    pass


def finds(rank, folder, whole, part):
    (folder / f"{rank}.found").write_text(f"{type(whole).__name__} {whole.filename} {whole.sum()} {part.sum()}")


def trains_and_encodes(folder):
    """All that is shared, one after another."""
    mapped = np.memmap(folder / "array", np.float32, mode="r")
    run_shared(finds, (folder, mapped, mapped[4:]), count=2)
    model, rows, embeddings = torch.load(folder / "given.pt", weights_only=False)
    curve = train_in_processes(
        model, rows, embeddings, num_processes=process_count(TRAINING, CPU), training=TRAINING, seed=1, device=CPU
    )
    torch.save((model.state_dict(), curve.losses), folder / "trained.pt")
    told: list[tuple[int, int]] = []
    vectors = encode_texts(
        TEXTS,
        checkpoint_dir=folder / "llm",
        encoder=ENCODER,
        chunk_dir=folder / "chunks",
        progress=lambda *of: told.append(of),
    )
    assert told[-1] == (2500, 2500)
    np.save(folder / "vectors.npy", vectors)


def test_launched_processes_train_the_bits_of_processes_of_one_machine_and_encode_those_of_one(
    tiny_split, tiny_spec, tiny_rows, embeddings, llm, tmp_path
):
    def fresh():
        return new_model(tiny_spec.grown(extra_labels=["paid"]), tiny_split().deep, seed=3)

    rows, model = tiny_rows, fresh()
    rows.extra_labels["paid"] = np.float32([1, 0, np.nan] * 3)
    np.arange(6, dtype=np.float32).tofile(tmp_path / "array")
    torch.save((model, rows, embeddings), tmp_path / "given.pt")
    (tmp_path / "llm").symlink_to(llm)
    ended = torchrun(trains_and_encodes, tmp_path)
    assert ended.returncode == 0, ended.stderr
    for rank in range(2):
        assert (tmp_path / f"{rank}.found").read_text() == f"memmap {tmp_path / 'array'} 15.0 9.0"

    weights, losses = torch.load(tmp_path / "trained.pt")
    curve = train_in_processes(model, rows, embeddings, num_processes=2, training=TRAINING, seed=1, device=CPU)
    assert losses == curve.losses
    for name, tensor in model.state_dict().items():
        assert torch.equal(weights[name], tensor), name
    assert not all(torch.equal(weights[name], tensor) for name, tensor in fresh().state_dict().items())

    assert len(list((tmp_path / "chunks").iterdir())) == len(chunks_of(TEXTS)) > 2
    assert np.array_equal(np.load(tmp_path / "vectors.npy"), encode_texts(TEXTS, checkpoint_dir=llm, encoder=ENCODER))


def fails(rank, failing, folder):
    if rank == failing:
        raise NamedError(f"rank {rank} says why")


def goes_on_after_its_own_error(folder):
    with pytest.raises(NamedError, match="rank 0 says why"):
        run_shared(fails, (0, folder), count=2)
    with pytest.raises(LostProcessesError, match="an earlier error"):
        run_shared(fails, (None, folder), count=2)
    (folder / "went on").touch()


def test_after_an_error_of_the_first_nothing_is_shared_any_more(tmp_path):
    ended = torchrun(goes_on_after_its_own_error, tmp_path)
    assert (tmp_path / "went on").exists(), ended.stderr
    assert ended.returncode == 1  # the other one waited for the first to end its part


def waits_for_one_that_fails(folder):
    run_shared(fails, (1, folder), count=2)
    (folder / "went on").touch()


def test_an_error_of_another_ends_all(tmp_path):
    ended = torchrun(waits_for_one_that_fails, tmp_path)
    assert ended.returncode == 1
    assert "NamedError: rank 1 says why" in ended.stderr
    assert ended.stdout == ""  # the answer is the first one's to give
    assert not (tmp_path / "went on").exists()
