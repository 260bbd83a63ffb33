"""The methods by name: one file, one config class and one line here for each."""

from typing import Any

from ssl_core.methods.method import Method, Output
from ssl_core.methods.simclr import SimCLR
from ssl_core.methods.simsiam import SimSiam

__all__ = ["METHODS", "Method", "Output"]

METHODS: dict[str, Any] = {
    "simclr": SimCLR,
    "simsiam": SimSiam,
}
