"""Assets: the files of the page, held in memory with their compressed form and ETag.

They are those of `static/` and one script of the package plotly; a browser loads nothing from other hosts.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import Request, Response

from api.responses import has_current_etag
from service.errors import NotFound

PLOTLY = "plotly.min.js"
_MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# Plotly adds its rules to a style element that it creates empty; the hash is that of the empty text.
_EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
_COMMON = ("default-src 'none'", f"style-src 'self' {_EMPTY_STYLE}", "base-uri 'none'", "form-action 'none'")
_PAGE_POLICY = "; ".join(
    [
        *_COMMON,
        "script-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "frame-src 'self'",
        "frame-ancestors 'none'",
    ]
)
# Plotly's WebGL scatter evaluates text: it may in a frame of its own origin, without a key and without requests.
_FRAME = "frame.html"
_FRAME_POLICY = "; ".join(
    [*_COMMON, "script-src 'self' 'unsafe-eval'", "img-src data:", "frame-ancestors 'self'", "sandbox allow-scripts"]
)
_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # each use asks whether the ETag is current
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page."""

    content: bytes
    compressed: bytes
    etag: str
    media_type: str


def respond(request: Request, name: str) -> Response:
    """Return the response with the file, compressed if the client accepts it, or 304. Raises NotFound."""
    asset = load(name)
    policy = _FRAME_POLICY if name == _FRAME else _PAGE_POLICY
    headers = _HEADERS | {"Content-Security-Policy": policy, "ETag": asset.etag}
    if has_current_etag(request, asset.etag):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(asset.compressed, headers=headers, media_type=asset.media_type)
    return Response(asset.content, headers=headers, media_type=asset.media_type)


def load(name: str) -> Asset:
    """Return the file with this path below `static/`, or Plotly's script. Raises NotFound."""
    if name not in list_names():
        raise NotFound
    return _load(name)


@cache
def list_names() -> frozenset[str]:
    """Return the paths of all files."""
    return frozenset({PLOTLY, *_walk(resources.files("api.web").joinpath("static"))})


def _walk(folder: Traversable, prefix: str = "") -> list[str]:
    names = []
    for entry in folder.iterdir():
        if entry.is_dir():
            names += _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.rpartition(".")[2] in _MEDIA_TYPES:
            names.append(prefix + entry.name)
    return names


@cache
def _load(name: str) -> Asset:
    own = resources.files("api.web").joinpath("static")
    file = resources.files("plotly.package_data").joinpath(name) if name == PLOTLY else own.joinpath(name)
    content = file.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    media_type = _MEDIA_TYPES[name.rpartition(".")[2]]
    return Asset(content, gzip.compress(content, 6, mtime=0), etag, media_type)
