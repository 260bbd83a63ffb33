"""Routes of the page: `/`, and the scripts and styles that it loads."""

from fastapi import APIRouter, Request, Response

from api.web import assets

router = APIRouter(include_in_schema=False)


@router.get("/")
def index(request: Request) -> Response:
    return assets.respond(request, "index.html")


@router.get("/page/{name:path}")
def file(request: Request, name: str) -> Response:
    return assets.respond(request, name)
