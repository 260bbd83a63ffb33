"""The network of an experiment: each process reaches the broker, and PostgreSQL, through a link of its own."""

from pathlib import Path
from typing import Literal

from sqlalchemy import make_url

from tests.faults.fleet import Fleet
from tests.faults.nemesis.proxy import Counts, Mode, Proxy

Server = Literal["database", "broker"]


class Network:
    """Links by the name of the process and that of the server; SQLite has none."""

    def __init__(self, fleet: Fleet) -> None:
        self.proxy = Proxy(fleet.spawn)
        self._url = make_url(fleet.settings.database)
        self._broker = fleet.broker.socket
        self.has_database = self._url.get_backend_name() == "postgresql"

    def environment(self, process: str) -> dict[str, str]:
        """Add the links of a process; return the settings that name them."""
        port = self.proxy.add(f"{process} broker", self._broker)
        values = {"TWOVIEWS_BROKER_URL": f"redis://127.0.0.1:{port}/0"}
        if self.has_database:
            socket = Path(str(self._url.query["host"])) / ".s.PGSQL.5432"
            port = self.proxy.add(f"{process} database", socket)
            plain = {"sslmode": "disable", "gssencmode": "disable"}
            url = self._url.set(host="127.0.0.1", port=port, query=plain)
            values["TWOVIEWS_DATABASE_URL"] = url.render_as_string(hide_password=False)
        return values

    def set_mode(self, process: str, server: Server, mode: Mode, *, reset: bool = False) -> Counts:
        return self.proxy.set_mode(f"{process} {server}", mode, reset=reset)

    def counts(self, process: str, server: Server) -> Counts:
        return self.proxy.counts(f"{process} {server}")
