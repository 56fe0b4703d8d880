import dataclasses

import pytest
import torch

from bahe_tasks.core import compiled_layers
from benchmarks.gpu_cost import TINY, Size, run

SIZE = Size(TINY, layers_cut=2, users=2, steps=1, texts_at_once=16, matmul=64, compiled=(False,))


@pytest.mark.parametrize(
    ("tuning", "pooling", "recomputed"),
    [("full", "mean", False), ("full", "summary", False), ("full", "summary", True), ("lora", "mean", False)],
)
def test_the_steps_of_a_gpu_run_at_tiny_size_on_the_cpu(tuning, pooling, recomputed):
    document = run(SIZE, tuning=tuning, pooling=pooling, recomputed=recomputed, device=torch.device("cpu"))
    assert {"samples_per_s", "encode_texts_per_s", "mfu", "hours_50m"} <= document.figures.keys()
    assert [(row["samples_a_step"], row["device"]) for row in document.rows] == [(2, "cpu"), (8, "cpu")]
    # the user is passed once for 4 impressions, and titles are few beside 300 behaviors
    alone, grouped = (row["tera_operations_a_step"] for row in document.rows)
    assert alone < grouped < 1.05 * alone


def test_steps_are_measured_uncompiled_and_compiled(monkeypatch):
    programs = []
    torch._dynamo.reset()
    monkeypatch.setattr(compiled_layers, "BACKEND", lambda graph, _: programs.append(graph) or graph.forward)
    size = dataclasses.replace(SIZE, compiled=(False, True))
    document = run(size, tuning="full", pooling="summary", recomputed=False, device=torch.device("cpu"))
    assert [row["compiled"] for row in document.rows] == [False, False, True, True]
    assert programs
    assert document.figures["samples_per_s"] == document.rows[3]["samples_per_s"]
    assert document.figures["samples_per_s_eager"] == document.rows[1]["samples_per_s"]
