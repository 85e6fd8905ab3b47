"""Runs -> methods: what differs in the seed only is one, and what else differs gives it its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from infopro.errors import BadRun, UnknownName
from infopro.objectives import from_name
from infopro.recipes import RunConfig
from infopro.run_report.reading import StoredRun

__all__ = ["Method", "common_fields", "group_runs"]

_OF_OBJECTIVES = ("reconstruction_weight", "task_weight", "task_head", "decoder", "temperature")
_SAID = ("objective", "num_modules", "seed")  # which every name, and the runs' names say


@dataclass(frozen=True, kw_only=True, eq=False)
class Method:
    """One way of training, with its runs: one per seed."""

    name: str  # "greedy, K = 4"
    family: str  # "greedy": the same for every K
    description: str  # the fields in which it differs from others
    runs: tuple[StoredRun, ...]

    @property
    def config(self) -> RunConfig:
        """Of the first run; the others differ in the seed."""
        return self.runs[0].config

    @property
    def cuts(self) -> tuple[str, ...]:
        return self.runs[0].cuts


def group_runs(runs: Sequence[StoredRun]) -> list[Method]:
    """The methods: end to end first, then each family by K, in the order of the runs.

    Raises:
        BadRun: runs on different data, whose errors do not compare.
    """
    _require_one_data_set(runs)
    groups: dict[tuple[tuple[str, str], ...], list[StoredRun]] = {}
    for run in runs:
        groups.setdefault(tuple(_settings(run).items()), []).append(run)
    settings = [dict(key) for key in groups]
    varied = _varied(settings)
    labels = [_label(group[0].config) for group in groups.values()]
    places = [(label, each["num_modules"]) for label, each in zip(labels, settings, strict=True)]
    methods = []
    for place, each, group in zip(places, settings, groups.values(), strict=True):
        rivals = [s for p, s in zip(places, settings, strict=True) if p == place]
        family = _named(place[0], each, [*_varied(rivals), *(["model"] if "model" in varied else [])])
        config = group[0].config
        whole = config.objective == "end-to-end"
        methods.append(
            Method(
                name=family if whole else f"{family}, K = {config.num_modules}",
                family=family,
                description="; ".join(
                    f"{n} {each[n]}" for n in varied if n in each and n not in (*_SAID, "cuts")
                ),
                runs=tuple(sorted(group, key=lambda run: run.config.seed)),
            )
        )
    return _ordered(methods)


def common_fields(methods: Sequence[Method]) -> dict[str, str]:
    """The fields of the configuration in which all runs agree; of one run alone, all."""
    runs = [run for method in methods for run in method.runs]
    found = {}
    for field in fields(RunConfig):
        values = {_text(getattr(run.config, field.name)) for run in runs}
        if len(values) == 1:
            found[field.name] = values.pop()
    return found


def _require_one_data_set(runs: Iterable[StoredRun]) -> None:
    for name in ("data", "hold_out"):
        values = sorted({_text(getattr(run.config, name, None)) for run in runs})
        if len(values) > 1:
            raise BadRun(
                "runs that were tested on different images do not go into one report",
                got=f"{name} {', '.join(values)}",
                remedy="make a report of each",
            )


def _settings(run: StoredRun) -> dict[str, str]:
    """What a run computes but for the seed: without what its objective does not read."""
    config = run.config
    try:
        known = {field.name for field in fields(from_name(config.objective))}
    except UnknownName:  # of a plug-in that is not installed here
        known = set(_OF_OBJECTIVES)
    unread = {name for name in _OF_OBJECTIVES if name not in known} | {"seed", "balance"}
    found = {f.name: _text(getattr(config, f.name)) for f in fields(RunConfig) if f.name not in unread}
    return found | {"cuts": ", ".join(run.cuts) or "none"}


def _varied(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The fields in which some of them differ; one that an objective does not have is no difference."""
    names = dict.fromkeys(name for each in settings for name in each)
    return [name for name in names if len({each[name] for each in settings if name in each}) > 1]


def _label(config: RunConfig) -> str:
    if config.objective == "end-to-end":
        return "end to end"
    weight = config.reconstruction_weight
    nothing = not any(weight) if isinstance(weight, tuple) else not weight
    has_decoder = config.objective.startswith("infopro")
    return f"{config.objective}, λ1 = 0" if has_decoder and nothing else config.objective


def _named(label: str, settings: Mapping[str, str], distinguishing: Iterable[str]) -> str:
    parts = [f"{name} = {settings[name]}" for name in dict.fromkeys(distinguishing) if name not in _SAID]
    return ", ".join([label, *parts])


def _ordered(methods: list[Method]) -> list[Method]:
    families = list(dict.fromkeys(method.family for method in methods))

    def place(method: Method) -> tuple[bool, int, int]:
        whole = method.config.objective == "end-to-end"
        return not whole, families.index(method.family), method.config.num_modules

    return sorted(methods, key=place)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)
