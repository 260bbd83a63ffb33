"""Real sockets against a server: what a client without a key can hold, and for how long."""

import contextlib
import itertools
import socket
import time

import pytest

from tests.api.live import read_response, serving_fresh
from tests.api.responses import check_problem
from tests.processes import soon

SHORT = {"http_head_seconds": 1.0, "http_body_seconds": 1.0, "http_idle_seconds": 2.0}
FEW = {"http_connections": 60, "http_connections_per_address": 20, "trusted_proxies": "", "wrong_keys_per_minute": 100}
CHUNKED = b"POST /jobs HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = {  # what a client sends first, and then again and again
    "a request line": (b"GET /", b"x" * 65536),
    "a header": (b"GET / HTTP/1.1\r\nX-Long: ", b"x" * 65536),
    "many headers": (b"GET / HTTP/1.1\r\n", b"X-1: a\r\n" * 8192),
    "a trailer": (CHUNKED + b"0\r\nX: ", b"x" * 65536),
    "many trailers": (CHUNKED + b"0\r\n", b"X-1: a\r\n" * 8192),
    "a chunk extension": (CHUNKED + b"1;x=", b"x" * 65536),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory, _sqlite_template, _broker):
    """A server on SQLite with short deadlines and few connections."""
    data = tmp_path_factory.mktemp("live")
    with serving_fresh(data, _sqlite_template, _broker, **SHORT, **FEW) as server:
        yield server


@pytest.fixture
def connect(server):
    """Connects to the server from an address of the loopback network; the connections are closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda address="127.0.0.1": stack.enter_context(server.connect(address))


def is_closed(connection: socket.socket) -> bool:
    """Return whether the server has closed the connection, of which nothing else is expected."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize("kind", ENDLESS)
def test_endless_framing_is_refused(server, connect, kind):
    start, more = ENDLESS[kind]
    before, connection, sent = server.peak_bytes, connect(), 0
    connection.sendall(start)
    with contextlib.suppress(ConnectionError):
        while sent < 50 * 2**20:
            connection.sendall(more)
            sent += len(more)
    assert sent < 20 * 2**20
    assert server.peak_bytes - before < 16 * 2**20
    assert server.client.get("/health/live").status_code == 200


@pytest.mark.parametrize("start", [b"GET /health/live HTTP/1.1\r\nHost: a\r\nX-Long: ", CHUNKED + b"0\r\nX-Long: "])
def test_too_long_framing_is_431(server, connect, start):
    connection = connect()
    for part in (start[:20], start[20:] + b"x" * 40_000, b"x" * 40_000):
        connection.sendall(part)
        time.sleep(0.2)  # several reads, as over a slow connection
    if start.startswith(b"GET"):
        check_problem(read_response(connection), 431, "request_header_fields_too_large")
    else:  # the key was missed before
        assert read_response(connection).status_code == 401


def test_long_head_within_the_limit_keeps_the_connection(server):
    headers = {"X-Long": "x" * 30_000, "Content-Type": "application/json"}
    for _ in range(3):
        check_problem(server.client.post("/keys", headers=headers, content=b"{" + b" " * 300_000), 400, "bad_request")


def test_small_chunks_are_no_endless_framing(server, connect):
    body = b'{"name": "' + b"x" * 90 + b'"}' + b" " * 60_000
    chunks = (
        b"".join(b"1;extension\r\n%c\r\n" % byte for byte in body) + b"0\r\nX-Trailer: a\r\nAuthorization: b\r\n\r\n"
    )
    head = f"POST /keys HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {server.key}\r\nConnection: close\r\n"
    head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection = connect()
    connection.sendall(head.encode() + chunks)
    answer = read_response(connection)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")


def test_invalid_http_is_400(server, connect):
    connection = connect()
    connection.sendall(b"\x16\x03\x01\x02\x00 hello\r\n\r\n")
    assert "Invalid HTTP" in check_problem(read_response(connection), 400, "bad_request")["detail"]


@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: b\r\n"])
def test_a_request_needs_one_host(server, connect, hosts):
    connection = connect()
    connection.sendall(b"GET /health/live HTTP/1.1\r\nConnection: close\r\n" + hosts + b"\r\n")
    answer = read_response(connection)
    assert "Host" in check_problem(answer, 400, "bad_request")["detail"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/jobs", "/keys", "/datasets", "/embed", "/models"])
@pytest.mark.parametrize("key", ["", "Authorization: Bearer tv_wrong\r\n"])
def test_without_a_valid_key_no_body_is_read(server, connect, path, key):
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n{key}"
    head += "Content-Type: application/json\r\n\r\n"
    before, connections = server.peak_bytes, []
    for _ in range(18):
        connections.append(connect())
        connections[-1].sendall(head.encode() + b" " * 1_000_000)
    for connection in connections:
        assert connection.recv(12) == b"HTTP/1.1 401"  # before the body has ended
        assert server.peak_bytes - before < 10 * 2**20


def test_silent_connections_make_room_for_new_ones(server, connect):
    silent = [connect(f"127.0.0.{2 + number // 18}") for number in range(5 * 18)]
    assert server.client.get("/health/live").status_code == 200
    soon(lambda: sum(map(is_closed, silent)) >= len(silent) - FEW["http_connections"])


def test_one_address_replaces_its_own_connections_only(server, connect):
    other = connect("127.0.0.50")
    many = [connect("127.0.0.51") for _ in range(25)]
    soon(lambda: sum(map(is_closed, many)) >= 5)
    other.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert read_response(other).status_code == 200


def test_connections_in_use_are_not_replaced(server, connect):
    uploads = [server.begin_upload(b"x") for _ in range(20)]
    refused = connect()
    assert read_response(refused).status_code == 503
    for connection in uploads:
        connection.close()
    soon(lambda: server.client.get("/health/live").status_code == 200)


@pytest.mark.parametrize("sent", [b"", b"GET /health/live HTTP/1.1\r\nHost:"])
def test_a_head_that_does_not_come_ends_the_connection(server, connect, sent):
    connection = connect()
    connection.sendall(sent)
    if sent:
        check_problem(read_response(connection), 408, "request_timeout")
    else:
        assert connection.recv(1) == b""


def test_a_head_that_comes_byte_by_byte_has_one_deadline(server, connect):
    connection = connect()
    with contextlib.suppress(ConnectionError):
        for byte in itertools.cycle(b"GET / HTTP/1.1\r\nX: " + b"x" * 60):
            connection.sendall(bytes([byte]))
            time.sleep(0.1)
            if is_closed(connection):
                return


def test_a_body_that_stops_is_408(server):
    connection = server.begin_upload(b"x" * 1000)
    check_problem(read_response(connection), 408, "request_timeout")


def test_a_slow_body_is_received(server, connect):
    body = b'{"name": "slow"}'
    head = f"POST /keys HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {server.key}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = connect()
    connection.sendall(head.encode())
    for byte in body:
        time.sleep(0.15)  # longer in all than a body may stop
        connection.sendall(bytes([byte]))
    assert read_response(connection).status_code == 201


def test_a_body_that_is_not_read_is_dropped_for_some_time_only(server, connect):
    connection = connect()
    connection.sendall(b"POST /jobs HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    until = time.monotonic() + 30
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < until:
            connection.sendall(b"1\r\nx\r\n")
            time.sleep(0.05)
    assert time.monotonic() < until


def test_a_response_that_is_not_read_ends_the_connection(server, connect):
    connection, count = connect(), 400
    connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * count)
    time.sleep(4)
    received = b""
    with contextlib.suppress(ConnectionError):
        received = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    assert received.count(b"HTTP/1.1 200") < count


def test_an_idle_connection_is_closed(server, connect):
    connection = connect()
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
    assert read_response(connection).status_code == 200  # which returns when the connection is closed


def test_many_wrong_keys_are_429_for_their_address(server):
    def ask(key: str, address: str) -> bytes:
        with server.connect(address) as connection:
            connection.sendall(f"GET /jobs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
            return connection.recv(4096)

    assert server.client.get("/jobs").status_code == 200
    for number in range(FEW["wrong_keys_per_minute"]):
        assert ask(f"tv_{number}", "127.0.0.60").startswith(b"HTTP/1.1 401")
    refused = ask("tv_another", "127.0.0.60")
    assert refused.startswith(b"HTTP/1.1 429")
    assert b"\r\nretry-after: " in refused
    assert ask(server.key, "127.0.0.60").startswith(b"HTTP/1.1 200")  # it was valid before
    assert ask("tv_another", "127.0.0.61").startswith(b"HTTP/1.1 401")
