"""A configuration as a run's config.json holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from infopro.errors import BadConfiguration
from infopro.recipes._config import RunConfig, check

__all__ = ["from_plain", "plain", "unlike_defaults"]

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
    """A configuration from its JSON form."""
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
