"""Hooks of Schemathesis: the Idempotency-Key of each valid request is new, as clients are to choose it."""

import itertools

import schemathesis
from schemathesis import Case, HookContext

_NUMBERS = itertools.count()
_HEADER = "idempotency-key"
_MAX_LENGTH = 255


@schemathesis.hook
def before_call(context: HookContext, case: Case, arguments: dict) -> None:
    """Make the Idempotency-Key of a valid case unique; an invalid case is sent as it is."""
    if case.meta is None or case.meta.generation.mode.is_negative:
        return
    for name, value in list((case.headers or {}).items()):
        if name.lower() == _HEADER and isinstance(value, str) and value:
            number = f"{next(_NUMBERS):x}"
            case.headers[name] = (number + value)[:_MAX_LENGTH]
