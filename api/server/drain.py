"""The drain: whether the server is stopping. Shared by the server, the routes and the middleware of one process."""


class Drain:
    """Begins with SIGTERM or SIGINT and does not end; beginning it is safe in a signal handler."""

    def __init__(self) -> None:
        self.has_begun = False

    def begin(self) -> None:
        """From now on the service is not ready, waiting requests are answered, and connections close."""
        self.has_begun = True
