"""The page at `/`: pick a model, draw or choose a picture, see what it is taken for, and what each model can do.

Plain files of the package, without a build and without anything from elsewhere. They hold no data and need no key; what
they show comes from `/v1/...`, which may ask for one.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, HTTPException, Request, Response

from .service import PlainRoute

router = APIRouter(route_class=PlainRoute, include_in_schema=False)

FOLDER = "page"
INDEX = "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, but asked for each time: a rollout must not mix two versions of the page
}


@dataclass(frozen=True)
class Asset:
    """A file of the page, as it is sent."""

    content: bytes
    headers: dict[str, str]


@cache
def assets() -> dict[str, Asset]:
    """The page's files by their name. The same file has the same ETag in every replica."""
    found = {}
    for file in files(__package__).joinpath(FOLDER).iterdir():
        kind = MEDIA_TYPES.get(file.name[file.name.rfind(".") :])
        if kind:
            content = file.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[file.name] = Asset(content, {**HEADERS, "Content-Type": kind, "ETag": etag})
    return found


def is_known(if_none_match: str, etag: str) -> bool:
    """Whether the client has this version; a proxy that compresses makes the tag a weak one (`W/`)."""
    return etag in (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))


def answer(name: str, request: Request) -> Response:
    """The file, or 304 where the client has it, or 404."""
    asset = assets().get(name)
    if asset is None:
        raise HTTPException(404, "Not Found")
    if is_known(request.headers.get("if-none-match", ""), asset.headers["ETag"]):
        return Response(status_code=304, headers=asset.headers)
    return Response(asset.content, headers=asset.headers)


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """The page."""
    return answer(INDEX, request)


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
async def asset(request: Request) -> Response:
    """What the page consists of."""
    return answer(request.path_params["name"], request)
