"""Complete, named training configurations: every cell of InfoPro's published tables, and the demonstration's.

A new table is one new file with `RECIPES`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache

from infopro._plugins import public_modules
from infopro.errors import UnknownName
from infopro.recipes._asynchronous import Stopped, train_cached_run, train_decoupled_run
from infopro.recipes._bad_images import listing_bad_images, skipped_before
from infopro.recipes._config import RunConfig, build_objective, check, problems
from infopro.recipes._describe import describe, field_help, published_text
from infopro.recipes._fingerprint import data_hash, source_hash
from infopro.recipes._initial_weights import find_initial_weights
from infopro.recipes._loading import LoadedRun, load_run
from infopro.recipes._mask_examples import MaskExamples, read_mask_examples
from infopro.recipes._recipe import Published, Recipe
from infopro.recipes._reloading import train_run
from infopro.recipes._running import fit, open_run, refuse_existing, restore, write_timeline
from infopro.recipes._session import Session, choose_device, evaluate_run, prepare, prepare_data
from infopro.recipes._stored import as_options, from_plain
from infopro.recipes._task import make_task
from infopro.recipes._together import meet, require_alike

__all__ = [
    "LoadedRun",
    "MaskExamples",
    "Published",
    "Recipe",
    "RunConfig",
    "Session",
    "Stopped",
    "as_options",
    "build_objective",
    "check",
    "choose_device",
    "data_hash",
    "describe",
    "evaluate_run",
    "field_help",
    "find_initial_weights",
    "fit",
    "from_plain",
    "list_recipes",
    "listing_bad_images",
    "load",
    "load_run",
    "make_task",
    "meet",
    "open_run",
    "prepare",
    "prepare_data",
    "problems",
    "published_beside",
    "read_mask_examples",
    "refuse_existing",
    "require_alike",
    "restore",
    "skipped_before",
    "source_hash",
    "train_cached_run",
    "train_decoupled_run",
    "train_run",
    "write_timeline",
]


def load(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UnknownName: there is none; the message lists near names.

    Example:
        >>> recipe = load("cifar10-resnet32-k4-infopro-contrast")
        >>> recipe.config.cuts, recipe.published.test_error
        (('layer1.2', 'layer2.1', 'layer3.0'), 8.58)
    """
    recipes = _recipes()
    if name not in recipes:
        raise UnknownName("recipe", name, recipes)
    return recipes[name]


def list_recipes(pattern: str = "*") -> list[str]:
    """The names of all recipes that match a pattern of `*` and `?`, table by table.

    Example:
        >>> list_recipes("cifar10-resnet32-k16-*")[:2]
        ['cifar10-resnet32-k16-greedy', 'cifar10-resnet32-k16-dgl']
    """
    return [name for name in _recipes() if fnmatchcase(name, pattern)]


def published_beside(name: str | None, config: RunConfig | None = None) -> str:
    """The published number of a recipe as text to stand beside ours; empty without recipe or number."""
    return "" if name is None else published_text(load(name), config)


@cache
def _recipes() -> dict[str, Recipe]:
    found: dict[str, Recipe] = {}
    for file, module in public_modules(__name__, list(__path__)).items():
        for recipe in module.RECIPES:
            assert recipe.name not in found, f"{file}.py declares {recipe.name} for the second time"
            found[recipe.name] = recipe
    return found
