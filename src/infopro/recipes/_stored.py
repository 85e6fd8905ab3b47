"""A configuration as a run's config.json holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from infopro.errors import BadConfiguration
from infopro.recipes._config import RunConfig, check

__all__ = ["as_options", "from_plain", "plain", "unlike_defaults"]

_SAME_RESULT = ("none", "pipeline", "data")  # one may go on with what another began


def plain(config: RunConfig) -> dict[str, Any]:
    """What JSON gives back: lists for tuples. How processes share the work is no part of what is computed."""
    values = {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()
    }
    return values | ({"parallel": "none"} if config.parallel in _SAME_RESULT else {})


def unlike_defaults(configuration: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what an earlier version's run did not store, where that has its default."""
    defaults = plain(RunConfig())
    return {n: v for n, v in configuration.items() if n in stored or v != defaults[n]}


def from_plain(values: Mapping[str, Any]) -> RunConfig:
    """A configuration from its JSON form.

    Raises:
        BadConfiguration: fields that this version does not have, or values that no run can have.
    """
    if not isinstance(values, Mapping):
        raise BadConfiguration("a stored configuration is not a JSON object", got=type(values).__name__)
    known: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    try:
        config = RunConfig(**known)
    except TypeError as error:
        raise BadConfiguration(
            "the run's config.json has other fields than this version", got=error
        ) from error
    check(config)
    return config


def as_options(config: RunConfig, base: RunConfig) -> list[str]:
    """What `infopro train` is told so that it runs `config`, where it would run `base` without options.

    Example:
        >>> as_options(RunConfig(objective="greedy", cuts=("a", "b")), RunConfig())
        ['--objective=greedy', '--cuts=[a,b]']
    """
    changed = {
        field.name: value
        for field in fields(RunConfig)
        if (value := getattr(config, field.name)) != getattr(base, field.name)
    }
    return [f"--{name.replace('_', '-')}={_as_text(value)}" for name, value in changed.items()]


def _as_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{','.join(map(_as_text, value))}]"
    return str(value)
