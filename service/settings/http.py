"""Settings of the API."""

from pydantic import BaseModel, Field


class HttpSettings(BaseModel):
    """Connections, deadlines, wrong keys, long polls, streams."""

    http_connections: int = Field(
        1000, ge=1, description="Open connections of the API, fewer if the process may open fewer files."
    )
    http_connections_per_address: int = Field(250, ge=1, description="Of one address that is no trusted proxy.")
    http_head_seconds: float = Field(20, gt=0, description="From a connection, or a request's first byte, to its head.")
    http_body_seconds: float = Field(30, gt=0, description="Without a byte of a body, or of a response that is read.")
    http_idle_seconds: float = Field(30, gt=0, description="Between two requests of a connection.")
    http_drain_seconds: float = Field(
        0,
        ge=0,
        description="From SIGTERM to the refusal of new connections, with /health/ready at 503: longer than the "
        "interval at which a proxy checks it.",
    )
    http_grace_seconds: float = Field(
        30, ge=0, description="For requests in progress after that; those that remain are answered with 503."
    )
    trusted_proxies: str = Field(
        "127.0.0.1,::1", description="Addresses and networks whose X-Forwarded-For is trusted; `*` for all."
    )
    wrong_keys_per_minute: int = Field(
        30, ge=1, description="Of one address; beyond it keys that were not valid before are answered with 429."
    )
    max_body_bytes: int = Field(2**20, gt=0, description="Of a JSON request other than /embed.")
    idempotency_hours: float = Field(24, gt=0, description="How long the response for an Idempotency-Key is stored.")
    long_poll_seconds: float = Field(30, gt=0, description="The maximum of `wait=`.")
    long_polls_per_key: int = Field(
        200, ge=1, description="Requests of one key that wait or stream at a time; beyond it the response is 429."
    )
    stream_keep_alive_seconds: float = Field(
        15, gt=0, description="Without a message of a stream, before a comment keeps its connection open."
    )
