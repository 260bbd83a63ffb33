"""Redaction: removes secrets from lines of logs."""

import json
import re
from collections.abc import Callable, Iterable
from urllib.parse import unquote, urlsplit

from service.settings import Settings

REPLACEMENT = "[secret]"
_MIN_LENGTH = 4  # of a configured secret: a shorter one occurs in other words
_PATTERNS = (
    re.compile(r"tv_[A-Za-z0-9_-]{16,}"),  # keys
    re.compile(r"(?<=://)[^/\s\"'@]*:[^/\s\"'@]+(?=@)"),  # user and password of a URL
    re.compile(r"(?<=[Bb]earer )[^\s\"'\\,)]+"),
)
_HINTS = ("tv_", "://", "earer ")  # one of them is in every line that a pattern matches


def build(settings: Settings) -> Callable[[str], str]:
    """Return a function that removes keys, bearer tokens, passwords in URLs, and the secrets of the settings."""
    known = sorted(set(_spell(_secrets_of(settings))), key=len, reverse=True)
    configured = re.compile("|".join(map(re.escape, known))) if known else None

    def redact(line: str) -> str:
        if configured is not None:
            line = configured.sub(REPLACEMENT, line)
        if any(hint in line for hint in _HINTS):
            for pattern in _PATTERNS:
                line = pattern.sub(REPLACEMENT, line)
        return line

    return redact


def _secrets_of(settings: Settings) -> Iterable[str]:
    yield settings.encoder_token.get_secret_value()
    for url in (settings.database_url, settings.broker_url):
        _, colon, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
        if colon:
            yield password
            yield unquote(password)


def _spell(secrets: Iterable[str]) -> Iterable[str]:
    """Yield each secret as it is in a text, and as it is in a JSON string."""
    for secret in secrets:
        if len(secret) >= _MIN_LENGTH:
            yield from (secret, json.dumps(secret, ensure_ascii=False)[1:-1])
