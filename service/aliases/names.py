"""Names of aliases: what they may be, and the model that one stands for."""

import re
from typing import Any, get_args

from sqlalchemy import ScalarSelect, select

from service.db.ids import Prefix
from service.db.models import Alias

_PREFIXES = "|".join(get_args(Prefix))
PATTERN = rf"^(?!({_PREFIXES})_)[a-z][a-z0-9._-]{{0,62}}$"  # an id, or a part of one, is no alias
_FORMAT = re.compile(PATTERN.removesuffix("$") + r"\Z")


def is_valid(name: str) -> bool:
    """Whether the text may be the name of an alias."""
    return _FORMAT.match(name) is not None


def select_model_id(tenant_id: str, name: str) -> ScalarSelect[Any]:
    """Return the subquery for the id of the model that the alias stands for."""
    return select(Alias.model_id).where(Alias.tenant_id == tenant_id, Alias.name == name).scalar_subquery()
