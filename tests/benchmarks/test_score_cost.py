"""What score_cost counts and compares, at a few pairs."""

import numpy as np
import pytest

from bahe_tasks.core.point_in_time import NUM_SHIFTS_OF_LOG, NUMBERS
from bahe_tasks.core.score import score_pairs
from benchmarks.score_cost import CPU, head_operations, model_of, pairs_of, run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    return model_of(2)


def test_both_ways_score_the_same_pairs(model):
    together, apart = (
        score_pairs(model, **pairs_of(64, 2, pairs_a_user=32, together=t, seed=1), device=CPU) for t in (True, False)
    )
    np.testing.assert_allclose(together, apart, rtol=1e-4)


def test_operations_are_two_for_each_weight_a_pair_meets(model):
    vectors = 5 * (384 + 16) * 16 + 2 * 2 * 16  # item, users, products and two numeric columns, to a vector of 16 each
    factors = 2 + 2  # of how topics meet and how long histories are
    crossed = (
        7 * 16 + 2 + 2 + 3 * 8 + 4 * 16 + len(NUMBERS) - NUM_SHIFTS_OF_LOG
    )  # those, topics, lengths, ids, hashed columns, numbers
    mlp = crossed * 128 + 128 * 64 + 64
    assert head_operations(model) == 2 * (vectors + factors + mlp + 2 * 2 * 64 * crossed + crossed)


def test_every_way_has_a_row_and_figures_are_of_six_features():
    document = run(num_pairs=32, rounds=1, num_requests=20, batch_size=128)
    assert [(row["features"], row["pairs_a_user"], row["together"]) for row in document.rows] == [
        (n, *way) for n in (2, 6) for way in ((1, False), (100, True), (100, False))
    ]
    assert document.figures["pairs_per_s"] == document.rows[3]["pairs_per_s"]
    assert document.figures["pairs_per_s_100_a_user"] == document.rows[4]["pairs_per_s"]
    assert document.figures["p99_ms"] == document.rows[4]["p99_ms"] > 0
