"""Ids: a prefix for the type, then 26 characters that sort by the time of creation."""

import re
import secrets
import time
from typing import Literal

Prefix = Literal["ds", "job", "mdl", "key", "req", "ten", "ckpt", "aud", "idx", "swp"]
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no two characters look alike
_FORMAT = re.compile(r"[a-z]{2,4}_[0-9a-z]{26}")


def new(prefix: Prefix) -> str:
    """Return a new id such as `job_01k…`: 48 bits of milliseconds, then 82 random bits."""
    number = (time.time_ns() // 1_000_000) << 82 | secrets.randbits(82)
    return prefix + "_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def is_valid(value: str) -> bool:
    """Whether `value` has the form of an id; other values are refused without a query."""
    return _FORMAT.fullmatch(value) is not None
