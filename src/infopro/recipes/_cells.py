"""From a published table to recipes: one per cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from infopro.recipes._config import RunConfig
from infopro.recipes._recipe import Published, Recipe

__all__ = [
    "SOURCE",
    "Blocks",
    "Cuts",
    "Errors",
    "Lambdas",
    "balanced_cells",
    "cut_names",
    "end_to_end",
    "local_cells",
]

SOURCE = "Wang, Ni, Song, Yang, Huang, ICLR 2021 (arXiv 2101.10832); cuts and λ: the published code"

Blocks = tuple[tuple[int, int], ...]  # as published: (stage, block) that end a module; stage 0 is the stem
Cuts = Mapping[int, tuple[str, ...]]  # K -> the names of the K - 1 cuts
Lambdas = Mapping[int, tuple[float, float, float, float]]  # K -> as published: ixx_1, ixy_1, ixx_2, ixy_2
Errors = Mapping[str, Mapping[int, tuple[float, float]]]  # objective -> K -> test error %, standard deviation

_SOFTMAX = "the λ of the softmax variant are not published: these are the contrast variant's of the same cell"


def cut_names(published: Mapping[int, Blocks]) -> dict[int, tuple[str, ...]]:
    """The cuts as names of blocks; the stem ends with the ReLU behind its BatchNorm.

    Example:
        >>> cut_names({3: ((0, 0), (1, 2))})
        {3: ('relu', 'layer1.2')}
    """
    return {
        num_modules: tuple(f"layer{stage}.{block}" if stage else "relu" for stage, block in blocks)
        for num_modules, blocks in published.items()
    }


def end_to_end(prefix: str, base: RunConfig, published: Published, *, notes: tuple[str, ...] = ()) -> Recipe:
    """Ordinary back-propagation with the table's training options."""
    config = replace(base, objective="end-to-end", num_modules=1, reconstruction_weight=None, task_weight=1.0)
    return Recipe(name=f"{prefix}-end-to-end", config=config, published=published, source=SOURCE, notes=notes)


def local_cells(
    prefix: str, base: RunConfig, *, cuts: Cuts, lambdas: Lambdas, errors: Errors, notes: tuple[str, ...] = ()
) -> Iterator[Recipe]:
    """The cells of Table 2 for one data set and network: every K with every objective."""
    for num_modules, names in cuts.items():
        for objective, by_modules in errors.items():
            split = replace(base, objective=objective, num_modules=num_modules, cuts=names)
            config, weight_notes = _weighted(split, lambdas)
            yield Recipe(
                name=f"{prefix}-k{num_modules}-{objective}",
                config=config,
                published=_published(by_modules.get(num_modules)),
                source=SOURCE,
                notes=(*weight_notes, *_missing_notes(num_modules, by_modules), *notes),
            )


def balanced_cells(
    prefix: str,
    base: RunConfig,
    *,
    cuts: Cuts,
    lambdas: Lambdas,
    results: Mapping[int, tuple[float, float, float]],  # K -> test error %, standard deviation, GB
    notes: tuple[str, ...] = (),
) -> Iterator[Recipe]:
    """The InfoPro* cells of Table 3: contrast, cut where the modules' memory is equal."""
    for num_modules, (test_error, deviation, memory_gb) in results.items():
        split = replace(base, objective="infopro-contrast", num_modules=num_modules, cuts=cuts[num_modules])
        config, _ = _weighted(replace(split, balance="memory"), lambdas)
        published = Published(
            test_error=test_error, standard_deviation=deviation, table="Table 3", memory_gb=memory_gb
        )
        name = f"{prefix}-k{num_modules}-balanced-infopro-contrast"
        yield Recipe(name=name, config=config, published=published, source=SOURCE, notes=notes)


def _published(result: tuple[float, float] | None) -> Published | None:
    if result is None:
        return None
    return Published(test_error=result[0], standard_deviation=result[1], table="Table 2")


def _missing_notes(num_modules: int, results: Mapping[int, object]) -> tuple[str, ...]:
    if num_modules in results:
        return ()
    return (f"the cuts for K = {num_modules} are published, a test error is not",)


def _weighted(config: RunConfig, lambdas: Lambdas) -> tuple[RunConfig, tuple[str, ...]]:
    """The configuration with its λ, and notes on those that are not published."""
    if not config.objective.startswith("infopro"):
        return replace(config, reconstruction_weight=None, task_weight=1.0), ()
    # K = 2 has no last weight, so that of the next larger K is the nearest
    nearest = min(k for k in lambdas if k >= config.num_modules)
    ixx_1, ixy_1, ixx_2, ixy_2 = lambdas[nearest]
    notes: tuple[str, ...] = (_SOFTMAX,) if config.objective == "infopro-softmax" else ()
    if nearest != config.num_modules:
        notes += (f"the λ for K = {config.num_modules} are not published: these are those for K = {nearest}",)
    return replace(config, reconstruction_weight=(ixx_1, ixx_2), task_weight=(ixy_1, ixy_2)), notes
