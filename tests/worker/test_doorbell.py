"""The doorbell: rings reach the queue up to a limit, and are dropped when the broker is unreachable."""

from pathlib import Path

from service.doorbell import Doorbell
from tests import servers
from tests.processes import soon


def test_a_ring_is_a_message_in_the_queue(broker_url: str) -> None:
    bell = Doorbell(broker_url)
    assert bell.depth("train") == 0
    bell.ring("train")
    bell.ring("data")
    bell.ring("data")
    soon(lambda: (bell.depth("train"), bell.depth("data")) == (1, 2))
    bell.close()


def test_fill_sends_only_the_missing_rings(broker_url: str) -> None:
    bell = Doorbell(broker_url)
    bell.ring("train")
    for _ in range(20):
        bell.fill("train", 3)
    soon(lambda: bell.depth("train") == 3)
    bell.fill("train", 2)
    bell.ring("data")
    soon(lambda: bell.depth("data"))
    assert bell.depth("train") == 3
    bell.close()


def test_a_queue_holds_at_most_a_hundred_rings(broker_url: str) -> None:
    bell = Doorbell(broker_url)
    for _ in range(250):
        bell.ring("train")
    soon(lambda: bell.depth("train") == 100)
    bell.fill("train", 1000)
    bell.ring("data")
    soon(lambda: bell.depth("data"))
    assert bell.depth("train") == 100
    bell.close()


def test_a_bell_reconnects_to_its_broker(tmp_path: Path) -> None:
    with servers.dead_port() as port:
        bell = Doorbell(f"redis://127.0.0.1:{port}/0")
        bell.ring("train")
        assert bell.depth("train") is None
        bell.close()
    with servers.valkey(tmp_path) as url:
        bell = Doorbell(url)
        bell.ring("train")
        soon(lambda: bell.depth("train") == 1)
        with servers.broker_client(url) as client:
            client.client_kill_filter(skipme=True)  # as a restart of the broker does

        def is_rung_again() -> bool:
            bell.ring("train")
            return (bell.depth("train") or 0) > 1

        soon(is_rung_again)
        bell.close()


def test_a_closed_bell_sends_no_ring(broker_url: str) -> None:
    bell = Doorbell(broker_url)
    bell.close()
    bell.ring("train")
    assert bell.depth("train") == 0
