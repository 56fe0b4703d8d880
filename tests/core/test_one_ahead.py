import threading

import pytest

from bahe_tasks.core.one_ahead import one_ahead


def test_what_is_made_comes_in_order_and_the_next_is_being_made_meanwhile():
    begun = {n: threading.Event() for n in range(4)}

    def make(n: int) -> int:
        begun[n].set()
        return n * n

    found = []
    for n, made in enumerate(one_ahead(make, range(4))):
        found.append(made)
        assert n == 3 or begun[n + 1].wait(timeout=30)
        assert n > 1 or not begun[n + 2].is_set()
    assert found == [0, 1, 4, 9]
    assert list(one_ahead(make, [])) == []


def test_an_error_comes_in_its_turn():
    made = one_ahead(lambda n: 6 // n, [3, 2, 0, 1])
    assert (next(made), next(made)) == (2, 3)
    with pytest.raises(ZeroDivisionError):
        next(made)
