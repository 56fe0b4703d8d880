"""Calls made again, against a server that loses answers."""

from __future__ import annotations

import pytest

from bahe_tasks.engines import airflow_api
from bahe_tasks.engines.airflow_api import AirflowApi, AirflowApiError


@pytest.fixture
def api(monkeypatch):
    """An API whose calls are answered with the statuses in `api_answers`, one after the other."""
    monkeypatch.setattr(airflow_api, "PAUSES_S", (0, 0))
    answers: list[int] = []

    def answer(self, method, path, body, timeout_s):
        status = answers.pop(0)
        if status != 200:
            raise AirflowApiError(f"{status}", status=status)
        return {"method": method}

    monkeypatch.setattr(AirflowApi, "_call_once", answer)
    return AirflowApi("http://127.0.0.1:1"), answers


@pytest.mark.parametrize("lost", [0, 503])
def test_a_call_that_met_no_answer_or_a_locked_database_is_made_again(api, lost):
    server, answers = api
    answers += [lost, lost, 200]
    assert server.call("PATCH", "x") == {"method": "PATCH"}


def test_it_is_given_up_in_the_end(api):
    server, answers = api
    answers += [503, 503, 503]
    with pytest.raises(AirflowApiError, match="503"):
        server.call("PATCH", "x")
    assert answers == []


@pytest.mark.parametrize(("method", "status"), [("DELETE", 404), ("PUT", 409), ("POST", 409)])
def test_a_call_whose_answer_was_lost_has_done_its_work(api, method, status):
    server, answers = api
    answers += [0, status]
    assert server.call(method, "x") is None


@pytest.mark.parametrize(("method", "status"), [("DELETE", 404), ("PUT", 409), ("POST", 409)])
def test_the_same_answer_to_a_first_call_is_a_refusal(api, method, status):
    server, answers = api
    answers += [status]
    with pytest.raises(AirflowApiError):
        server.call(method, "x")


def test_a_call_that_must_not_be_repeated_is_made_once(api):
    server, answers = api
    answers += [503, 200]
    with pytest.raises(AirflowApiError):
        server.call("POST", "x", retry=False)
    assert answers == [200]
