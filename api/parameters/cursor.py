"""The cursor of lists whose rows have ids, newest first."""

from typing import Annotated

from fastapi import Query
from pydantic import WithJsonSchema

from api.parameters.patterns import ID

_SCHEMA = {"type": "string", "pattern": ID, "title": "After"}
After = Annotated[str | None, Query(max_length=64, description="`next` of the previous page."), WithJsonSchema(_SCHEMA)]
