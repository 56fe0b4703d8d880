"""Scoring on a device that runs out of memory."""

import re

import numpy as np
import pytest
import torch

from bahe_tasks.core.halving import Halving
from bahe_tasks.core.score import item_embeddings, score, score_pairs, user_embeddings

pytestmark = pytest.mark.usefixtures("one_thread")  # batches of pairs are tried one after the other then

CPU = torch.device("cpu")
METHOD = {"scores": "forward", "users": "user_embedding", "items": "item_embedding", "pairs": "click_logit"}
NUM_ROWS = {
    "scores": lambda batch: len(batch.item_of),
    "users": lambda users: users.num_rows,
    "items": lambda items: len(items.known),
    "pairs": lambda _users, items, *_columns: len(items),
}
TOLD = dict.fromkeys(("scores", "users", "items"), "4 rows at once or fewer. Set training.rows_a_pass lower") | {
    "pairs": "4 pairs at once or fewer. Pairs of cached embeddings are small"
}


@pytest.fixture(params=list(METHOD))
def what(request) -> str:
    return request.param


@pytest.fixture
def made(what, tiny_model, tiny_rows, embeddings):
    """(batch size) → what is made of the nine tiny rows."""
    histories, as_of, titles = tiny_rows.histories, tiny_rows.shown_at, tiny_rows.title_rows
    users = user_embeddings(tiny_model, histories, as_of, embeddings, batch_size=9, device=CPU)
    items = item_embeddings(tiny_model, titles, embeddings, batch_size=9, device=CPU)
    pairs = {"user_ids": tiny_rows.user_ids, "item_ids": tiny_rows.item_ids, "cat": tiny_rows.cat, "num": tiny_rows.num}
    at_once = {
        "scores": lambda n: score(tiny_model, tiny_rows, embeddings, batch_size=n, device=CPU),
        "users": lambda n: user_embeddings(tiny_model, histories, as_of, embeddings, batch_size=n, device=CPU),
        "items": lambda n: item_embeddings(tiny_model, titles, embeddings, batch_size=n, device=CPU),
        "pairs": lambda n: score_pairs(tiny_model, users, items, **pairs, batch_size=n, device=CPU),
    }
    return at_once[what]


@pytest.fixture
def shrink(what, tiny_model, monkeypatch):
    """(most, after) → the numbers of rows tried, on a device that holds at most so many once it has had `after` batches."""

    def to(most: int, *, after: int = 0) -> list[int]:
        tried: list[int] = []
        whole = getattr(tiny_model, METHOD[what])

        def limited(*batch, **options):
            tried.append(NUM_ROWS[what](*batch))
            if tried[-1] > most and len(tried) > after:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return whole(*batch, **options)

        monkeypatch.setattr(tiny_model, METHOD[what], limited)
        return tried

    return to


def test_a_device_out_of_memory_is_given_half_the_rows_and_says_so_once(what, made, shrink, caplog):
    expected = made(9)
    tried = shrink(2)
    np.testing.assert_allclose(made(9), expected, atol=1e-6)
    assert tried == [9, 4, 2, 2, 2, 2, 1]  # what was learned holds for the rest of the call
    [told] = [message for message in caplog.messages if "out of memory" in message]
    assert f"going on with {TOLD[what]}" in told


def test_memory_that_runs_out_later_halves_the_rows_that_are_left(made, shrink):
    expected = made(9)
    tried = shrink(2, after=1)
    np.testing.assert_allclose(made(4), expected, atol=1e-6)
    assert tried == [4, 4, 2, 2, 1]


@pytest.mark.parametrize("what", ["pairs"])
def test_pairs_that_threads_score_are_halved_too(made, shrink, caplog):
    expected = made(9)
    shrink(2)
    torch.set_num_threads(2)
    try:
        np.testing.assert_allclose(made(4), expected, atol=1e-6)
    finally:
        torch.set_num_threads(1)
    assert len([message for message in caplog.messages if "out of memory" in message]) == 1


def test_one_row_that_does_not_fit_the_device_is_an_error_that_says_what_to_do(made, shrink, caplog):
    tried = shrink(0)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        made(9)
    assert tried == [9, 4, 2, 1]
    assert re.match("One (row|pair) alone does not fit", caught.value.__notes__[0])
    assert len([message for message in caplog.messages if "out of memory" in message]) == 1


def test_a_gpu_gives_back_what_it_keeps_each_time(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    for device, times in ((CPU, 0), (torch.device("cuda"), 2)):
        halving = Halving(device, unit="rows", advice="Set it lower.")
        assert [halving.of(tried) for tried in (9, 4)] == [4, 2]
        assert len(emptied) == times
