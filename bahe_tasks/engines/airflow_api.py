"""The few calls of Airflow's REST API that a backfill needs, over the loopback interface.

Unusual: on sqlite a write can meet a locked database, which the API answers with a 5xx; such a call is made again.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

ANSWER_S = 60.0
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
DONE_BEFORE = {"DELETE": 404, "PUT": 409, "POST": 409}
"""What a call made again is answered where the first did its work and only its answer was lost."""


class AirflowApiError(RuntimeError):
    """The API server refused a call, or did not answer. `status` is its HTTP status, 0 without an answer."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class AirflowApi:
    """The API server at `address`, for example http://127.0.0.1:8080."""

    address: str

    def get(self, path: str, **query: str | int) -> Any:
        """Return the JSON document at /api/v2/PATH."""
        return self.call("GET", f"{path}?{urlencode(query)}" if query else path)

    def wake(self) -> None:
        """Make the part of the API that tasks talk to ready; it is built at its first call, which takes seconds."""
        self._call_once("GET", "execution/health", None, ANSWER_S)

    def call(
        self,
        method: Literal["GET", "POST", "PATCH", "PUT", "DELETE"],
        path: str,
        body: Any = None,
        *,
        retry: bool = True,
        timeout_s: float = ANSWER_S,
    ) -> Any:
        """Return the JSON answer. A call that met a locked database or no answer is made again, with growing pauses.

        None where such a call turns out to have done its work the first time.
        """
        for number, pause_s in enumerate((*PAUSES_S, None) if retry else (None,)):
            try:
                return self._call_once(method, f"api/v2/{path}", body, timeout_s)
            except AirflowApiError as error:
                if number and error.status == DONE_BEFORE.get(method):
                    return None
                if pause_s is None or 0 < error.status < 500:
                    raise
                time.sleep(pause_s)
        raise AssertionError("unreachable")

    def _call_once(self, method: str, path: str, body: Any, timeout_s: float) -> Any:
        request = Request(f"{self.address}/{path}", method=method, headers={"Content-Type": "application/json"})
        if body is not None:
            request.data = json.dumps(body).encode()
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=timeout_s) as answer:
                text = answer.read()
        except HTTPError as error:
            detail = error.read().decode(errors="replace")[:500]
            raise AirflowApiError(
                f"Airflow answered {method} {path} with {error.code}: {detail}", status=error.code
            ) from error
        except (URLError, OSError) as error:
            raise AirflowApiError(f"Airflow at {self.address} does not answer: {error}", status=0) from error
        return json.loads(text) if text else None
