import types

import pytest
import torch

from benchmarks import train_cost
from benchmarks.kit.variants import SAMPLES_A_STEP


def test_clipping_and_optimiser_count_for_a_step_whatever_is_timed_at_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(train_cost, "perf_counter", lambda: now[0])
    monkeypatch.setattr(train_cost, "process_time", lambda: 2 * now[0])

    def takes(seconds):
        return lambda: now.__setitem__(0, now[0] + seconds)

    variant = types.SimpleNamespace(
        num_samples=4,
        forward_backward=takes(8),
        update=takes(64),
        optimizers=types.SimpleNamespace(zero_grad=takes(1000)),
    )
    expected = 8 / 4 + 64 / SAMPLES_A_STEP
    assert train_cost.timed(variant, torch.device("cpu")) == pytest.approx((expected, 2 * expected))


@pytest.mark.parametrize(
    "conditions", [train_cost.Conditions(True, "mean"), train_cost.Conditions(False, "summary", True, "bfloat16")]
)
def test_the_process_that_measures_memory_is_asked_for_the_same(conditions, monkeypatch):
    asked = []

    def run(command, **_):
        asked.extend(command)
        return types.SimpleNamespace(stdout="{}")

    monkeypatch.setattr(train_cost.subprocess, "run", run)
    train_cost.memory_in_another_process([512], conditions)
    found = []
    monkeypatch.setattr(train_cost, "memory_of", lambda _contender, _tokens, given, **_: found.append(given) or 1.0)
    monkeypatch.setattr(train_cost.sys, "argv", ["train_cost", *asked[asked.index("--memory") :]])
    train_cost.main()
    assert set(found) == {conditions}
