"""Ids: a prefix that says of what, then 26 letters that sort by the time they were made."""

import secrets
import time
from typing import Literal

Prefix = Literal["ds", "job", "mdl", "key", "req", "ten", "ckpt"]
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: nothing that looks like something else


def new(prefix: Prefix) -> str:
    """Return a fresh id such as `job_01k…`: 48 bits of milliseconds, then 82 random bits."""
    number = (time.time_ns() // 1_000_000) << 82 | secrets.randbits(82)
    return prefix + "_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
