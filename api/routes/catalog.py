"""Routes of the catalogue: methods and backbones of `ssl_core.config`, recipes of `ssl_core.recipes`."""

from dataclasses import asdict
from functools import cache
from typing import Any

from fastapi import APIRouter

from api import responses, schemas
from api.deps import ReadIdentity
from api.json_body import JsonRoute
from api.responses import JSONResponse
from ssl_core.config import BACKBONES, Backbone
from ssl_core.config.methods import METHODS
from ssl_core.recipes import RECIPES

router = APIRouter(tags=["catalogue"], route_class=JsonRoute)


@router.get("/methods", response_model=schemas.MethodList, summary="List methods")
async def methods(caller: ReadIdentity) -> JSONResponse:
    """Each method with its defaults and the JSON schema of `config.method`."""
    return responses.page(_list_methods(), False, None)


@router.get("/backbones", response_model=schemas.BackboneList, summary="List backbones")
async def backbones(caller: ReadIdentity) -> JSONResponse:
    """Each network that `config.backbone.name` may name, with its defaults and the JSON schema of `config.backbone`."""
    return responses.page(_list_backbones(), False, None)


@router.get("/recipes", response_model=schemas.RecipeList, summary="List recipes")
async def recipes(caller: ReadIdentity) -> JSONResponse:
    """Complete configs that can be submitted unchanged, with source, hardware, expected duration and result."""
    return responses.page([asdict(recipe) for recipe in RECIPES.values()], False, None)


@cache
def _list_backbones() -> list[dict[str, Any]]:
    schema = Backbone.model_json_schema()
    return [
        {
            "name": name,
            "description": text,
            "defaults": Backbone(name=name).model_dump(mode="json"),
            "schema": schema,
        }
        for name, text in BACKBONES.items()
    ]


@cache
def _list_methods() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "description": (method.__doc__ or "").strip(),
            "defaults": method(name=name).model_dump(mode="json"),
            "schema": method.model_json_schema(),
        }
        for name, method in METHODS.items()
    ]
