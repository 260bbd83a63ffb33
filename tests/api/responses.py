"""Checks of responses."""

from typing import Any

from httpx import Response
from pydantic import BaseModel

from api.schemas import Problem


def check_body(schema: type[BaseModel], answer: Response, status: int = 200) -> Any:
    """Validate the response by its schema; return its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    schema.model_validate_json(answer.content)
    return answer.json()


def check_problem(answer: Response, status: int, code: str) -> Any:
    """Check that the response is a problem of that status and code; return its body."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    Problem.model_validate_json(answer.content)
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code), body
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["detail"]
    return body


def get_pointers(body: Any) -> list[str]:
    return [fault["pointer"] for fault in body["errors"]]
