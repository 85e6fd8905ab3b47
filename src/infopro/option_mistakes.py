"""What the parser of options says of a mistake, in this project's words."""

from __future__ import annotations

import ast
import re

from infopro.errors import BadConfiguration

__all__ = ["mistaken"]

_KEY = r'Parser key "([\w.]+)"(?: element \d+)?: '
_UNREADABLE = re.compile(_KEY + r"(?:Does not validate .* Given|(Expected .*)\. Got) value: (.*)")
_OUT_OF_RANGE = re.compile(_KEY + r"Not of type \w+: (.*) does not conform to restriction v(.*)")
_MISSING = re.compile(r"the following arguments are required: (.*)")
_TYPES = {"int": "whole numbers", "float": "numbers", "bool": "true, false", "str": "text"}


def mistaken(message: str, *, command: str) -> BadConfiguration:
    """The error for a parser's message.

    Args:
        command: with whose help the parser answers.

    Example:
        >>> print(mistaken("the following arguments are required: export.run", command="infopro"))
        infopro export needs: run; see infopro export --help
    """
    message = re.sub(r"\s+", " ", message).strip()
    if found := _MISSING.fullmatch(message):
        return _missing(found[1].split(", "), command)
    if found := _UNREADABLE.fullmatch(message):
        return _unreadable(found[1], found[2], found[3], command)
    if found := _OUT_OF_RANGE.fullmatch(message):
        return BadConfiguration(
            f"{_option(found[1])} is out of range", got=found[2], allowed=found[3], remedy=_see(command)
        )
    return BadConfiguration(message, remedy=_see(command))


def _missing(names: list[str], command: str) -> BadConfiguration:
    """Of a subcommand, whose name stands before each argument's."""
    prefix, _, _ = names[0].rpartition(".")
    whole = f"{command} {prefix}".strip()
    wanted = ", ".join(name.rpartition(".")[2] for name in names)
    return BadConfiguration(f"{whole} needs: {wanted}", remedy=_see(whole))


def _unreadable(name: str, expected: str | None, value: str, command: str) -> BadConfiguration:
    """Of a value that fits none of an option's types: what the option is, and not how the parser tried."""
    from infopro.recipes import field_help

    name = name.rpartition(".")[2]
    allowed = None if expected is None else _allowed(expected)
    explained = f"; it is: {field_help()[name]}" if allowed is None and name in field_help() else ""
    what = f"{_option(name)} cannot be read"
    return BadConfiguration(what, got=f"{value}{explained}", allowed=allowed, remedy=_see(command))


def _allowed(expected: str) -> str | None:
    if found := re.fullmatch(r"Expected a typing\.Literal(\[.*\])", expected):
        return ", ".join(map(str, ast.literal_eval(found[1])))
    found = re.fullmatch(r"Expected a <class '(\w+)'>", expected)
    return _TYPES.get(found[1]) if found else None


def _option(name: str) -> str:
    return f"--{name.rpartition('.')[2].replace('_', '-')}"


def _see(command: str) -> str:
    return f"see {command} --help"
