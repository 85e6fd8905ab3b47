"""Chooses the blocks of a network by its own structure; no architecture is named here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from infopro.split.survey import Survey, survey

__all__ = ["Blocks", "find_blocks"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Blocks:
    """The blocks of a network in order of execution; a cut may lie behind each but the last.

    `stem` is the cut behind what runs before the first block, None where nothing with weights does.
    """

    stem: str | None
    names: tuple[str, ...]
    single_path: bool  # whether exactly one differentiable tensor crosses behind each block

    def __len__(self) -> int:
        return len(self.names)

    @property
    def units(self) -> tuple[str, ...]:
        """Stem and blocks."""
        return ((self.stem,) if self.stem else ()) + self.names


def find_blocks(model: nn.Module, inputs: tuple[Any, ...], *, at_least: int = 2) -> Blocks:
    """List the blocks behind which one tensor crosses; where those are too few, also all others."""
    run = survey(model, inputs)
    single = _collect(model, run, lambda name: run.batch_first[name] and run.crossing(name) == 1)
    if len(single.units) >= at_least:
        return single
    several = _collect(model, run, lambda name: run.batch_first[name])
    return several if len(several.units) > len(single.units) else single


def _collect(model: nn.Module, run: Survey, cuttable: Callable[[str], bool]) -> Blocks:
    finder = _Finder(model, run, cuttable)
    atoms = sorted(finder.atoms(""), key=lambda name: run.ends[name])
    composite = [a for a in atoms if finder.is_block(a)]
    if len(composite) >= 2:
        first = run.ends[composite[0]]
        before = [a for a in atoms if run.ends[a] < first]
        # the stem ends with the last module before the first block, be it a mere activation
        stem = before[-1] if any(_weighted(model.get_submodule(a)) for a in before) else None
        names = composite
    else:
        stem, names = None, _weight_layers(model, atoms)
    return Blocks(stem, tuple(names), all(run.crossing(name) == 1 for name in names))


def _weight_layers(model: nn.Module, atoms: list[str]) -> list[str]:
    """Plain networks: a block is a weight layer with the normalisation, activation and pooling behind it."""
    names: list[str] = []
    for atom in atoms:
        if _weighted(model.get_submodule(atom)) or not names:
            names.append(atom)
        else:
            names[-1] = atom
    return names


def _weighted(module: nn.Module) -> bool:
    return any(p.dim() >= 2 for p in module.parameters())


class _Finder:
    """Walks down the modules as long as opening one shows blocks inside it."""

    def __init__(self, model: nn.Module, run: Survey, cuttable: Callable[[str], bool]):
        self.model, self.run, self.cuttable = model, run, cuttable
        self.modules = dict(model.named_modules())
        names = [name for name in self.modules if name]
        # one instance that cannot be opened (a residual block) closes its whole class
        self.closed = {type(self.modules[n]) for n in names if not self._parts_cuttable(n)} - set(_CONTAINERS)

    def atoms(self, name: str) -> Iterator[str]:
        for child in self._parts(name):
            if self._opens(child):
                yield from self.atoms(child)
            elif self.run.called_once(child) and self.cuttable(child):
                yield child

    def is_block(self, name: str) -> bool:
        """A composite module that is an element of a list, or a list of such."""
        return self._is_element(name) and self._composite(name)

    def _parts(self, name: str) -> list[str]:
        """The children that forward calls; an uncalled container (a list) stands for its elements."""
        children = [f"{name}.{c}" if name else c for c, _ in self.modules[name].named_children()]
        result: list[str] = []
        for child in children:
            if child in self.run.ends:
                result.append(child)
            elif isinstance(self.modules.get(child), _CONTAINERS):  # None: a module known by another name
                result.extend(self._parts(child))
        return result

    def _parts_cuttable(self, name: str) -> bool:
        parts = [p for p in self._parts(name) if _has_parameters(self.modules[p])]
        return all(self.run.called_once(p) and self.run.crossing(p) == 1 for p in parts)

    def _opens(self, name: str) -> bool:
        module = self.modules[name]
        parts = [p for p in self._parts(name) if _has_parameters(self.modules[p])]
        if not parts or type(module) in self.closed or not any(self.cuttable(p) for p in parts):
            return False
        if isinstance(module, _CONTAINERS) and not self._parts_all(parts):
            return False
        if self._is_element(name):
            return any(self._is_list_of_composites(n) for n in self._lists_in(name))
        return True

    def _parts_all(self, parts: list[str]) -> bool:
        return all(self.cuttable(p) for p in parts)

    def _lists_in(self, name: str) -> Iterator[str]:
        yield from (n for n in self.modules if (n == name or n.startswith(name + ".")) and self._is_list(n))

    def _is_list(self, name: str) -> bool:
        return isinstance(self.modules[name], _CONTAINERS)

    def _is_list_of_composites(self, name: str) -> bool:
        return sum(self._composite(f"{name}.{c}") for c, _ in self.modules[name].named_children()) >= 2

    def _composite(self, name: str) -> bool:
        """Whether a module is built of several modules with parameters."""
        return sum(_has_own_parameters(m) for m in self.modules[name].modules()) >= 2

    def _is_element(self, name: str) -> bool:
        parent, _, _ = name.rpartition(".")
        return bool(parent) and isinstance(self.modules[parent], _CONTAINERS)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _has_own_parameters(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None
