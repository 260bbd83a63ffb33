"""The listening socket: its permissions and address, and invalid settings."""

import socket
import stat
from pathlib import Path

import pytest

from service.settings import Settings
from tests.servers import free_port
from worker.encoder.socket import listen


def test_the_unix_socket_is_accessible_to_its_owner_only(tmp_path: Path) -> None:
    with listen(Settings(data_dir=tmp_path)):
        assert stat.S_IMODE((tmp_path / "encoder.sock").stat().st_mode) == 0o600
        assert [path.name for path in tmp_path.iterdir()] == ["encoder.sock"]


def test_a_new_server_replaces_the_socket_of_a_dead_one(tmp_path: Path) -> None:
    listen(Settings(data_dir=tmp_path)).close()
    with listen(Settings(data_dir=tmp_path)) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.listen()
        caller.connect(str(tmp_path / "encoder.sock"))


def test_a_path_too_long_for_a_unix_socket_raises(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="TWOVIEWS_DATA_DIR"):
        listen(Settings(data_dir=tmp_path / ("long" * 40)))


def test_tcp_needs_a_token(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="TWOVIEWS_ENCODER_TOKEN"):
        listen(Settings(data_dir=tmp_path, encoder_url="http://127.0.0.1:9"))


@pytest.mark.parametrize("url", ["https://127.0.0.1:9", "127.0.0.1:9", "http://encoder"])
def test_an_invalid_address_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        listen(Settings(data_dir=tmp_path, encoder_url=url, encoder_token="secret"))


@pytest.mark.parametrize(
    ("host", "bound"), [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("a.b", "0.0.0.0")]
)
def test_an_ip_address_is_bound_as_it_is_and_a_name_on_all_addresses(tmp_path: Path, host: str, bound: str) -> None:
    with listen(
        Settings(data_dir=tmp_path, encoder_url=f"http://{host}:{free_port()}", encoder_token="secret")
    ) as listener:
        assert listener.getsockname()[0] == bound
