"""Chooses the blocks of a network by its own structure; no architecture is named here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from infopro.splitting.survey import Survey, survey

__all__ = ["TIERS", "Blocks", "blocks_in", "blocks_of", "find_blocks"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

Tier = Literal["chain", "dense", "any"]
# chain: elements of chains, as users know them. dense: also elements of lists among which several
# tensors pass,
# as in dense blocks and decoders with skips. any: every module that is called once.
TIERS: tuple[Tier, ...] = ("chain", "dense", "any")
FEW = 4  # blocks


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
    """The blocks of a network; finer ones where those that users expect are fewer than `at_least`.

    A network that shows fewer than four blocks may be cut behind any of its modules.
    """
    return blocks_in(model, survey(model, inputs), at_least=at_least)


def blocks_in(model: nn.Module, run: Survey, *, at_least: int = 2) -> Blocks:
    """`find_blocks` in a run that was watched already."""
    chain, dense, any_module = (blocks_of(model, run, tier) for tier in TIERS)
    if len(chain.units) >= at_least:
        return chain
    best = max(chain, dense, key=lambda blocks: len(blocks.units))
    return max(best, any_module, key=lambda b: len(b.units)) if len(best.units) < FEW else best


def blocks_of(model: nn.Module, run: Survey, tier: Tier) -> Blocks:
    """The blocks of one tier."""
    finder = _Finder(model, run, tier)
    atoms = sorted(finder.atoms(""), key=run.end)
    composite = [a for a in atoms if finder.is_block(a)]
    if len(composite) >= 2:
        first = run.end(composite[0])
        before = [a for a in atoms if run.end(a) < first]
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

    def __init__(self, model: nn.Module, run: Survey, tier: Tier):
        self.model, self.run, self.tier = model, run, tier
        self.modules = dict(model.named_modules())
        self.root = ""
        while len(self._parameter_parts(self.root)) == 1:  # a wrapper shows what it wraps
            (self.root,) = self._parameter_parts(self.root)
        called = [name for name in self.modules if name in run.calls]
        # one instance that cannot be opened (a residual block) closes its whole class
        self.closed = {type(self.modules[n]) for n in called if not self._is_chain(n)} - set(_CONTAINERS)

    def atoms(self, name: str) -> list[str]:
        """What is not opened inside a module, where a cut may lie behind it."""
        found: list[str] = []
        for child in self._parts(name):
            inner = self.atoms(child) if self._opens(child) else []
            # an element that shows fewer than two blocks inside is itself the block
            shown = sum(map(self.is_block, inner)) >= 2 if self._is_element(child) else bool(inner)
            if not shown and self._may_end_module(child, name):
                inner = [child]
            found += inner
        return found

    def _may_end_module(self, name: str, inside: str) -> bool:
        free = self.tier != "chain" or inside == self.root
        chained = free or self.run.others_alive(name, inside) == 0
        return chained and self.run.cuttable(name)

    def is_block(self, name: str) -> bool:
        """A composite module that is an element of a list; at the finest tier every module with weights."""
        if self.tier == "any":
            return _weighted(self.modules[name])
        return self._is_element(name) and self._composite(name)

    def _parts(self, name: str) -> list[str]:
        """The children that forward calls; an uncalled container (a list) stands for its elements."""
        children = [f"{name}.{c}" if name else c for c, _ in self.modules[name].named_children()]
        result: list[str] = []
        for child in children:
            if child in self.run.calls:
                result.append(child)
            elif isinstance(self.modules.get(child), nn.Module):  # None: a module known by another name
                result.extend(self._parts(child))
        return result

    def _parameter_parts(self, name: str) -> list[str]:
        return [p for p in self._parts(name) if _has_parameters(self.modules[p])]

    def _is_chain(self, name: str) -> bool:
        """Whether behind most parts only their result is still read: embeddings may be summed before."""
        parts = self._parameter_parts(name)
        links = [self.run.called_once(p) and self.run.others_alive(p, name) == 0 for p in parts]
        return 2 * sum(links) > len(links) or not parts

    def _opens(self, name: str) -> bool:
        parts = self._parameter_parts(name)
        if not any(self.run.cuttable(p) for p in parts):
            return False
        if self.tier == "any" or self.root == name or self.root.startswith(f"{name}."):
            return True
        closed = type(self.modules[name]) in self.closed or not self._is_chain(name)
        if closed or self._is_element(name):
            weights = 2 if closed else 1  # per element: a residual block's convolutions are not blocks
            has_blocks = any(self._is_list_of_composites(n, weights) for n in self._lists_in(name))
            return has_blocks and (not closed or self.tier == "dense")
        return True

    def _lists_in(self, name: str) -> Iterator[str]:
        yield from (n for n in self.modules if (n == name or n.startswith(name + ".")) and self._is_list(n))

    def _is_list(self, name: str) -> bool:
        return isinstance(self.modules[name], _CONTAINERS)

    def _is_list_of_composites(self, name: str, weights: int) -> bool:
        elements = [f"{name}.{child}" for child, _ in self.modules[name].named_children()]
        return sum(self._composite(e) and self._num_weights(e) >= weights for e in elements) >= 2

    def _num_weights(self, name: str) -> int:
        return sum(
            any(p.dim() >= 2 for p in m.parameters(recurse=False)) for m in self.modules[name].modules()
        )

    def _composite(self, name: str) -> bool:
        """Whether a module is built of several modules with parameters."""
        module = self.modules.get(name)
        return module is not None and sum(_has_own_parameters(m) for m in module.modules()) >= 2

    def _is_element(self, name: str) -> bool:
        parent, _, _ = name.rpartition(".")
        return bool(parent) and isinstance(self.modules[parent], _CONTAINERS)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _has_own_parameters(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None
