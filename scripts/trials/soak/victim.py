"""The good callers."""

import collections
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import requests

from scripts.trials.mixed_load import KEYS, Client
from scripts.trials.soak.latencies import Latencies

_CUT_OFF: Final = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)


class Victim(Client):
    """A client that takes 503 for an answer, and goes on when it is cut off."""

    corruption_until = 0.0

    def __init__(
        self,
        url: str,
        shared: "collections.deque[dict[str, Any]]",
        *,
        latencies: Latencies,
        bearer: str | None = None,
        kinds: Sequence[Mapping[str, str]] = KEYS,
    ) -> None:
        super().__init__(url, shared, kinds)
        if bearer is not None:
            self._http.headers["Authorization"] = f"Bearer {bearer}"
        self._latencies = latencies
        self.living: dict[str, dict[str, Any]] = {}
        self.cut_off: list[float] = []
        self.false_404: list[str] = []
        self.codes: collections.Counter[str] = collections.Counter()

    def _turn(self) -> None:
        try:
            super()._turn()
        except _CUT_OFF:
            self.cut_off.append(time.monotonic())
        except requests.Timeout:
            self.wrong.append("no answer")

    def _create(self) -> Any:
        key = super()._create()
        if key:
            self.living[key["kid"]] = key
        return key

    def _destroy(self, kid: str) -> None:
        del self.living[kid]  # whatever becomes of it now
        super()._destroy(kid)

    def _send(self, method: str, path: str, body: Any = None) -> requests.Response:
        began = time.monotonic()
        response = super()._send(method, path, body)
        if method == "POST" and path != "/keys":  # to make a pair takes as long as it takes
            self._latencies.note(began)
        return response

    def _note(self, path: str, response: requests.Response, expected: int) -> bool:
        status = response.status_code
        self.answers[f"{path} {status}"] += 1
        if status < HTTPStatus.BAD_REQUEST:
            return super()._judge(path, response, expected)
        if not _is_documented(response):
            self.wrong.append(f"{path}: {status} is not the documented JSON")
            return False
        self.codes[f"{status} {response.json()['error']}"] += 1
        is_corrupted = time.monotonic() < Victim.corruption_until
        if status == HTTPStatus.SERVICE_UNAVAILABLE or (
            status == HTTPStatus.INTERNAL_SERVER_ERROR and is_corrupted
        ):
            return False
        if status == HTTPStatus.NOT_FOUND != expected:
            self.false_404.append(path)
            return False
        return super()._judge(path, response, expected)


def _is_documented(response: requests.Response) -> bool:
    return response.headers["Content-Type"] == "application/json" and (
        set(response.json()) == {"error", "description"}
    )
