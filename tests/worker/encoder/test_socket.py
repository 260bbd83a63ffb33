"""Tests of the listener: who may reach it, and which settings allow none."""

import socket
import stat
from pathlib import Path

import pytest

from service.settings import Settings
from tests.servers import free_port
from worker.encoder.socket import listen


def test_the_unix_socket_is_its_owners_alone(tmp_path: Path) -> None:
    with listen(Settings(data_dir=tmp_path)):
        assert stat.S_IMODE((tmp_path / "encoder.sock").stat().st_mode) == 0o600
        assert [path.name for path in tmp_path.iterdir()] == ["encoder.sock"]


def test_a_new_encoder_takes_over_the_socket_of_one_that_died(tmp_path: Path) -> None:
    listen(Settings(data_dir=tmp_path)).close()
    with listen(Settings(data_dir=tmp_path)) as door, socket.socket(socket.AF_UNIX) as caller:
        door.listen()
        caller.connect(str(tmp_path / "encoder.sock"))


def test_a_path_too_long_for_a_socket_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="TWOVIEWS_DATA_DIR"):
        listen(Settings(data_dir=tmp_path / ("long" * 40)))


def test_tcp_needs_a_token(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="TWOVIEWS_ENCODER_TOKEN"):
        listen(Settings(data_dir=tmp_path, encoder_url="http://127.0.0.1:9"))


@pytest.mark.parametrize("url", ["https://127.0.0.1:9", "127.0.0.1:9", "http://encoder"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        listen(Settings(data_dir=tmp_path, encoder_url=url, encoder_token="secret"))


@pytest.mark.parametrize(
    ("host", "bound"), [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("a.b", "0.0.0.0")]
)
def test_an_address_is_bound_as_it_is_and_a_name_everywhere(tmp_path: Path, host: str, bound: str) -> None:
    with listen(
        Settings(data_dir=tmp_path, encoder_url=f"http://{host}:{free_port()}", encoder_token="secret")
    ) as door:
        assert door.getsockname()[0] == bound
