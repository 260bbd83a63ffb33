"""Ids: a prefix that says of what, then 26 letters that sort by the time they were made."""

import re
import secrets
import time
from typing import Literal

Prefix = Literal["ds", "job", "mdl", "key", "req", "ten", "ckpt"]
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: nothing that looks like something else
_SHAPE = re.compile(r"[a-z]{2,4}_[0-9a-z]{26}")


def new(prefix: Prefix) -> str:
    """Return a fresh id such as `job_01k…`: 48 bits of milliseconds, then 82 random bits."""
    number = (time.time_ns() // 1_000_000) << 82 | secrets.randbits(82)
    return prefix + "_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def plausible(value: str) -> bool:
    """Tell whether `value`, from outside, could be one of our ids; whatever else it is need not reach a database."""
    return _SHAPE.fullmatch(value) is not None
