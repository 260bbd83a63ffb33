"""The HTTP transport: authentication, retries, pagination and errors of the client."""

import random
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

from twoviews.credentials import Credentials
from twoviews.errors import ApiError, CannotReach

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
MAX_PAUSE_SECONDS = 30.0
PAGE_SIZE = 100
QUIET_SECONDS = 60.0  # of a stream: several times the interval at which the service keeps it alive


class Transport:
    """Sends requests, and retries those that are idempotent."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        timeout_seconds: float = 60,
        retries: int = 5,
        pause_seconds: float = 0.25,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Raises ValueError for an invalid URL, or a key with characters that a header cannot hold."""
        if not (credentials.key.isascii() and credentials.key.isprintable()):
            raise ValueError("The key holds characters that are not printable ASCII.")
        self.url, self._retries, self._pause_seconds = credentials.url, retries, pause_seconds
        self._timeout_seconds = timeout_seconds
        address = _parse_url(credentials.url)
        self._http = httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {credentials.key}", "User-Agent": "twoviews-python"},
            timeout=httpx.Timeout(timeout_seconds, connect=10),
            transport=transport,
            trust_env=address.host not in LOOPBACK,  # loopback needs no proxy
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """Send a GET and return the JSON of the response; parameters that are None are left out."""
        return self.send("GET", path, params=_drop_none(params)).json()

    def create(self, path: str, **content: Any) -> Any:
        """Send a POST with an Idempotency-Key, so that retries create one resource; return the JSON."""
        return self.send("POST", path, headers={"Idempotency-Key": str(uuid.uuid4())}, **content).json()

    def pages(self, path: str, **params: Any) -> Iterator[Mapping[str, Any]]:
        """Yield the items of a list; pages are fetched on demand."""
        params = {"limit": PAGE_SIZE, **params}
        while True:
            page = self.get(path, **params)
            yield from page["data"]
            if not page.get("has_more"):
                return
            params["after"] = page["next"]

    def send(self, method: str, path: str, *, safe: bool = True, **content: Any) -> httpx.Response:
        """Return a successful response. `safe`: the request may be sent again after a connection error.

        Raises ApiError and CannotReach.
        """
        for attempt in range(self._retries + 1):
            last = attempt == self._retries or not safe
            try:
                response = self._http.request(method, path, **content)
            except httpx.TransportError as error:
                if last:
                    raise self._cannot_reach(error) from error
                time.sleep(self._pause(attempt))
                continue
            if response.is_success:
                return response
            api_error = _to_error(response)
            if last or not _is_transient(api_error):
                raise api_error
            time.sleep(self._pause(attempt, response.headers.get("Retry-After")))
        raise AssertionError("the loop returns or raises")

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: httpx.Timeout | None = None,
        **params: Any,
    ) -> Iterator[httpx.Response]:
        """Yield the response to a GET with its body unread. Raises ApiError and CannotReach."""
        request = self._http.build_request(
            "GET", path, headers=headers, params=_drop_none(params), timeout=timeout or self._http.timeout
        )
        try:
            with closing(self._http.send(request, stream=True)) as response:
                if not response.is_success:
                    response.read()
                    raise _to_error(response)
                yield response
        except httpx.TransportError as error:
            raise self._cannot_reach(error) from error

    def messages(self, path: str, **params: Any) -> Iterator[ServerSentEvent]:
        """Yield the messages of a stream up to `done`, each once: a stream that ends before is opened again.

        Raises ApiError; and CannotReach when it cannot be opened again.
        """
        last_id, failures = "", 0
        while True:
            pause = self._pause(failures)
            try:
                for message in self._read_messages(path, last_id, params):
                    failures, pause = 0, pause if message.retry is None else message.retry / 1000
                    if message.data:
                        yield message
                        last_id = message.id
                    if message.event == "done":
                        return
            except (ApiError, CannotReach) as error:
                failures += 1
                if failures > self._retries or (isinstance(error, ApiError) and not _is_transient(error)):
                    raise
            time.sleep(pause)

    def _read_messages(self, path: str, last_id: str, params: Mapping[str, Any]) -> Iterator[ServerSentEvent]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        timeout = httpx.Timeout(max(self._timeout_seconds, QUIET_SECONDS), connect=10)
        with self.stream(path, headers=headers, timeout=timeout, **params) as response:
            yield from EventSource(response).iter_sse()

    def _pause(self, attempt: int, retry_after: str | None = None) -> float:
        """Return the seconds to wait: `retry_after`, else exponential backoff with jitter."""
        if retry_after is not None and retry_after.isdigit():
            return min(float(retry_after), MAX_PAUSE_SECONDS)
        return min(self._pause_seconds * 2.0**attempt, MAX_PAUSE_SECONDS) * random.uniform(0.5, 1)

    def _cannot_reach(self, error: httpx.TransportError) -> CannotReach:
        return CannotReach(
            f"{self.url} does not answer ({str(error) or type(error).__name__}). Is the service running?"
        )


def _parse_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url} is not a valid URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url} is not a valid URL; it must start with http:// or https://.")
    return parsed


def _drop_none(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _is_transient(error: ApiError) -> bool:
    return error.status in RETRIED_STATUSES or error.code == "idempotency_in_flight"


def _to_error(response: httpx.Response) -> ApiError:
    """Build the error from the RFC 9457 problem in the response, or from its status when it has none."""
    try:
        problem = response.json()
        return ApiError(
            response.status_code,
            str(problem["code"]),
            str(problem["detail"]),
            problem.get("errors") or [],
            problem.get("request_id") or response.headers.get("X-Request-ID"),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        detail = f"The service answered {response.status_code} {response.reason_phrase}."
        return ApiError(response.status_code, "unreadable_answer", detail, [], response.headers.get("X-Request-ID"))
