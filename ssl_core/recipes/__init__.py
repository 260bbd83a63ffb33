"""Recipes by name: complete configs with their sources. Imports no torch, so that the API can list them.

A recipe holds only settings that the config classes express exactly.
"""

from ssl_core.recipes.cifar10 import CIFAR10
from ssl_core.recipes.imagenet import IMAGENET
from ssl_core.recipes.published import PUBLISHED
from ssl_core.recipes.recipe import Recipe
from ssl_core.recipes.small import SMALL

__all__ = ["RECIPES", "Recipe"]

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (*SMALL, *PUBLISHED, *CIFAR10, *IMAGENET)}
