"""Routes for browsers: the page at `/`, and Swagger UI with the OpenAPI document at `/docs`. Nothing is loaded from
other hosts."""

from importlib import resources

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html

from api.web import assets
from service.errors import NotFound

router = APIRouter(include_in_schema=False)
_SCRIPT, _STYLE, _ICON = "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"
_MEDIA_TYPES = {_SCRIPT: "text/javascript", _STYLE: "text/css", _ICON: "image/png"}
_CACHED = {"Cache-Control": "public, max-age=86400"}


@router.get("/")
def page(request: Request) -> Response:
    return assets.respond(request, "index.html")


@router.get("/page/{name:path}")
def page_file(request: Request, name: str) -> Response:
    """Return a script or style that the page loads."""
    return assets.respond(request, name)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Its addresses are relative, so that a proxy may serve the API below a path."""
    return get_swagger_ui_html(
        title=request.app.title,
        openapi_url="openapi.json",
        swagger_js_url=f"docs/{_SCRIPT}",
        swagger_css_url=f"docs/{_STYLE}",
        swagger_favicon_url=f"docs/{_ICON}",
        swagger_ui_parameters={"validatorUrl": None},  # by default a service on the internet
    )


@router.get("/docs/{name}")
def docs_file(name: str) -> Response:
    if name not in _MEDIA_TYPES:
        raise NotFound
    content = resources.files("fastapi_swagger.resources").joinpath(name).read_bytes()
    return Response(content, headers=_CACHED, media_type=_MEDIA_TYPES[name])
