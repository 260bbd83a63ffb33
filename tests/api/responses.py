"""Answers: what tests expect of them."""

from typing import Any

from httpx import Response
from pydantic import BaseModel

from api.schemas import Problem


def shown(schema: type[BaseModel], answer: Response, status: int = 200) -> Any:
    """The answer's body, which is exactly what the documentation says."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    schema.model_validate_json(answer.content)
    return answer.json()


def problem(answer: Response, status: int, code: str) -> Any:
    """The answer's body, which is a problem of that status and code."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    Problem.model_validate_json(answer.content)
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code), body
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["detail"]
    return body


def pointers(body: Any) -> list[str]:
    return [fault["pointer"] for fault in body["errors"]]
