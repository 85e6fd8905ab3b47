"""Which runs a sweep consists of: recipes of one family where they exist, else what is derived from them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from infopro import recipes
from infopro.errors import BadConfiguration, InfoProError, UnknownName
from infopro.objectives import list_objectives
from infopro.recipes import RunConfig

__all__ = ["END_TO_END", "Cell", "list_methods", "plan_cells"]

END_TO_END = "end-to-end"
_OWN = ("seed", "num_modules", "objective")  # what the sweep itself varies


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a sweep."""

    name: str  # of its folder: "k4-greedy-seed0"
    method: str  # "greedy", or another ending of the family's recipes, such as "no-reconstruction"
    recipe: str | None  # the recipe that the configuration starts from; None: the defaults
    config: RunConfig
    note: str | None = None  # where no recipe says what this cell is

    def options(self) -> list[str]:
        """What `infopro train` is told to train this cell.

        Example:
            >>> plan_cells("digits-demo", methods=["greedy"], num_modules=[4], seeds=[1])[-1].options()
            ['digits-demo-k4-greedy', '--seed=1']
        """
        base = recipes.load(self.recipe).config if self.recipe else RunConfig()
        return [*([self.recipe] if self.recipe else []), *recipes.as_options(self.config, base)]


def list_methods(family: str) -> dict[str, list[int]]:
    """The methods of a family of recipes, each with the K that it has recipes for.

    Raises:
        UnknownName: no recipe is called FAMILY-kN-METHOD.

    Example:
        >>> list_methods("cifar10-resnet32")["greedy"]
        [2, 3, 4, 8, 16]
    """
    found: dict[str, list[int]] = {}
    for name in recipes.list_recipes():
        match = re.fullmatch(r"(.+)-k(\d+)-(.+)", name)
        if match is not None and match[1] == family:
            found.setdefault(match[3], []).append(int(match[2]))
    if not found:
        matches = (re.fullmatch(r"(.+)-k\d+-.+", name) for name in recipes.list_recipes())
        raise UnknownName("family of recipes", family, sorted({match[1] for match in matches if match}))
    return found


def plan_cells(
    family: str | None,
    *,
    methods: Sequence[str] | None = None,
    num_modules: Sequence[int] | None = None,
    seeds: Sequence[int],
    end_to_end: bool = True,
    overrides: Mapping[str, Any] | None = None,
) -> list[Cell]:
    """The runs of a sweep, seed by seed: what is stopped early has all methods of its first seeds.

    Args:
        family: how its recipes' names begin, such as "cifar10-resnet32"; None: the defaults of RunConfig.
        methods: how they end, or names of objectives; None: all that the family has.
        num_modules: K; None: all that the family has. 1 is end to end.
        end_to_end: K = 1 is trained besides, for comparison.
        overrides: fields of RunConfig that replace the recipes' own.

    Raises:
        UnknownName: no such family, or a method that neither the family nor `list_objectives` has.
        BadConfiguration: what some of the runs would be refused for, all of it.

    Example:
        >>> [cell.name for cell in plan_cells("digits-demo", methods=["dgl"], num_modules=[4], seeds=[0])]
        ['end-to-end-seed0', 'k4-dgl-seed0']
    """
    known = list_methods(family) if family else {}
    chosen = list(dict.fromkeys(methods or known or ("greedy", "dgl", "infopro-softmax", "infopro-contrast")))
    local = sorted({*(num_modules or {k for numbers in known.values() for k in numbers} or (2, 4, 8))})
    whole = end_to_end or 1 in local or END_TO_END in chosen
    pairs = [(method, k) for k in local if k > 1 for method in chosen if method != END_TO_END]
    if num_modules is None:  # what nobody asked for is trained only where a recipe says how
        pairs = [(method, k) for method, k in pairs if k in known.get(method, [k])]
    cells = [
        cell
        for seed in seeds
        for cell in (
            *([_whole(family, seed, overrides or {})] if whole else ()),
            *(_cell(family, known, method, k, seed, overrides or {}) for method, k in pairs),
        )
    ]
    if not cells:
        raise BadConfiguration("the sweep is empty", got=f"K {list(local)}, {len(seeds)} seeds")
    _check(cells)
    return cells


def _whole(family: str | None, seed: int, overrides: Mapping[str, Any]) -> Cell:
    name = f"{family}-{END_TO_END}"
    recipe = name if name in recipes.list_recipes() else None
    if family and recipe is None:
        raise UnknownName("recipe", name, recipes.list_recipes(), remedy="or pass --end-to-end false")
    base = recipes.load(recipe).config if recipe else RunConfig(reconstruction_weight=None, task_weight=1.0)
    left_out = ("cuts", "balance", "reconstruction_weight", "task_weight", "task_head", "decoder")
    wanted = {name: value for name, value in overrides.items() if name not in left_out}
    config = replace(base, objective=END_TO_END, num_modules=1, cuts=None, seed=seed, **wanted)
    return Cell(name=f"{END_TO_END}-seed{seed}", method=END_TO_END, recipe=recipe, config=config)


def _cell(
    family: str | None,
    known: Mapping[str, Sequence[int]],
    method: str,
    num_modules: int,
    seed: int,
    overrides: Mapping[str, Any],
) -> Cell:
    recipe, note = None, None
    if method in known:
        nearest = min(known[method], key=lambda k: (abs(k - num_modules), -k))
        recipe = f"{family}-k{nearest}-{method}"
        config = recipes.load(recipe).config
        if nearest != num_modules:
            config = replace(config, num_modules=num_modules, cuts=None)
            note = f"{family} has no {method} for K = {num_modules}: {recipe} with other cuts"
    elif method in list_objectives() and not family:
        config = replace(RunConfig(), objective=method, num_modules=num_modules)
    else:
        raise UnknownName("method", method, [*known, END_TO_END] if family else list_objectives())
    name = f"k{num_modules}-{method}-seed{seed}"
    config = replace(config, seed=seed, **overrides)
    return Cell(name=name, method=method, recipe=recipe, config=config, note=note)


def _check(cells: Sequence[Cell]) -> None:
    """All that is wrong with any of them, once."""
    found: dict[str, str] = {}
    for cell in cells:
        try:
            recipes.check(cell.config)
        except InfoProError as error:
            found.setdefault(str(error), cell.name)
    if found:
        raise BadConfiguration("; ".join(f"{name}: {problem}" for problem, name in found.items()))
