"""The transport: one HTTP connection pool that knows the key, the errors, and what may safely be sent twice."""

import random
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from twoviews.credentials import Credentials
from twoviews.errors import ApiError, CannotReach

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
LONGEST_PAUSE_SECONDS = 30.0
MOST_PER_PAGE = 100


class Transport:
    """Sends requests; retries those that change nothing when they arrive twice."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        timeout_seconds: float = 60,
        retries: int = 5,
        pause_seconds: float = 0.25,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Raises ValueError when the address is none, or the key holds what no header can."""
        if not (credentials.key.isascii() and credentials.key.isprintable()):
            raise ValueError("The key holds characters that no key of this service has.")
        self.url, self._retries, self._pause_seconds = credentials.url, retries, pause_seconds
        address = _address(credentials.url)
        self._http = httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {credentials.key}", "User-Agent": "twoviews-python"},
            timeout=httpx.Timeout(timeout_seconds, connect=10),
            transport=transport,
            trust_env=address.host not in LOOPBACK,  # no proxy leads to this very machine
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """Return the JSON that a GET answers; parameters that are None are left out."""
        return self.send("GET", path, params=_given(params)).json()

    def create(self, path: str, **content: Any) -> Any:
        """POST something that is to be made once: a key, made here, names the request however often it is sent."""
        return self.send("POST", path, headers={"Idempotency-Key": str(uuid.uuid4())}, **content).json()

    def pages(self, path: str, **params: Any) -> Iterator[Mapping[str, Any]]:
        """Yield the items of a list, page after page, as they are asked for."""
        params = {"limit": MOST_PER_PAGE, **params}
        while True:
            page = self.get(path, **params)
            yield from page["data"]
            if not page.get("has_more"):
                return
            params["after"] = page["next"]

    def send(self, method: str, path: str, *, safe: bool = True, **content: Any) -> httpx.Response:
        """Return a successful answer. `safe`: the request may be sent again when it is not known to have arrived.

        Raises ApiError and CannotReach.
        """
        for attempt in range(self._retries + 1):
            last = attempt == self._retries or not safe
            try:
                answer = self._http.request(method, path, **content)
            except httpx.TransportError as error:
                if last:
                    raise self._unreachable(error) from error
                time.sleep(self._pause(attempt))
                continue
            if answer.is_success:
                return answer
            refusal = _refusal(answer)
            if last or not _passing(refusal):
                raise refusal
            time.sleep(self._pause(attempt, answer.headers.get("Retry-After")))
        raise AssertionError("the loop returns or raises")

    @contextmanager
    def stream(self, path: str, **params: Any) -> Iterator[httpx.Response]:
        """Give a successful answer to a GET whose body is still to be read. Raises ApiError and CannotReach."""
        try:
            with self._http.stream("GET", path, params=_given(params)) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _refusal(answer)
                yield answer
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _pause(self, attempt: int, retry_after: str | None = None) -> float:
        """Return the seconds to wait: what the service asked for, else twice as long each time, with jitter."""
        if retry_after is not None and retry_after.isdigit():
            return min(float(retry_after), LONGEST_PAUSE_SECONDS)
        return min(self._pause_seconds * 2.0**attempt, LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1)

    def _unreachable(self, error: httpx.TransportError) -> CannotReach:
        return CannotReach(f"{self.url} does not answer ({str(error) or type(error).__name__}). Is the service up?")


def _address(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url} is not an address: {error}") from error
    if address.scheme not in ("http", "https") or not address.host:
        raise ValueError(f"{url} is not an address; it has to begin with http:// or https://.")
    return address


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _passing(refusal: ApiError) -> bool:
    return refusal.status in RETRIED_STATUSES or refusal.code == "idempotency_in_flight"


def _refusal(answer: httpx.Response) -> ApiError:
    """Return the RFC 9457 problem in the answer, or the best that can be said when it holds none."""
    try:
        problem = answer.json()
        return ApiError(
            answer.status_code,
            str(problem["code"]),
            str(problem["detail"]),
            problem.get("errors") or [],
            problem.get("request_id") or answer.headers.get("X-Request-ID"),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        detail = f"The service answered {answer.status_code} {answer.reason_phrase}."
        return ApiError(answer.status_code, "unreadable_answer", detail, [], answer.headers.get("X-Request-ID"))
