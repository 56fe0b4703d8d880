import threading
from contextvars import ContextVar

import pytest
import torch

from bahe_tasks.core.batch_threads import batch_a_thread

CPU = torch.device("cpu")
name: ContextVar[str] = ContextVar("name")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_given_from_two_threads_at_once(two_threads):
    both_at_work = threading.Barrier(2, timeout=60)  # one thread alone would wait in vain

    def doubled(number: int) -> int:
        both_at_work.wait()
        return 2 * number

    assert list(batch_a_thread(doubled, range(6), device=CPU)) == [0, 2, 4, 6, 8, 10]


def test_a_batch_sees_the_callers_context_and_has_one_of_torchs_threads(two_threads):
    name.set("the caller's")
    seen = list(batch_a_thread(lambda _: (name.get(), torch.get_num_threads()), range(4), device=CPU))
    assert seen == [("the caller's", 1)] * 4


def test_an_error_is_raised_and_torch_has_its_threads_again(two_threads):
    def failing(number: int) -> None:
        raise KeyError(number)

    with pytest.raises(KeyError, match="0"):
        list(batch_a_thread(failing, range(3), device=CPU))
    of_new_thread: list[int] = []
    thread = threading.Thread(target=lambda: of_new_thread.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *of_new_thread] == [2, 2]


def test_no_thread_is_made_for_one_batch(two_threads):
    assert list(batch_a_thread(lambda _: threading.current_thread(), [1], device=CPU)) == [threading.current_thread()]


def test_a_thread_that_begins_meanwhile_has_all_of_torchs_threads(two_threads):
    begun: list[int] = []

    def begin_another(_: int) -> None:
        thread = threading.Thread(target=lambda: begun.append(torch.get_num_threads()))
        thread.start()
        thread.join()

    list(batch_a_thread(begin_another, range(4), device=CPU))
    assert begun == [2] * 4
