"""What one call of run.py is asked to do: jobs, their keys, and the JSON lines that are left of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from infopro import recipes
from infopro.recipes import RunConfig

__all__ = ["EXECUTIONS", "PRECISIONS", "Job", "append", "key_of", "name_of", "read", "training_jobs"]

PRECISIONS = ("bfloat16", "tf32", "float32")  # bfloat16: autocast; tf32: of convolutions and products
EXECUTIONS = ("eager", "compiled", "graphed")  # graphed: compiled, and replayed as CUDA graphs


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run to train, a step to measure, the throughput of several runs, or a script."""

    kind: Literal["train", "measure", "throughput", "script"]
    recipe: str  # of a script: its name
    seed: int = 0
    precision: str = "bfloat16"
    execution: Literal["eager", "compiled", "graphed"] = "eager"
    changed: Mapping[str, Any] = field(default_factory=dict)  # fields of the recipe, as JSON holds them
    group: str = ""  # of the priorities
    estimate: float = 0.0  # seconds alone on one GPU; a guess until it was measured

    @property
    def alone(self) -> bool:
        """Whether nothing else may run beside it: times and memory are what it is for."""
        return self.kind in ("measure", "script")

    @property
    def name(self) -> str:
        """Of its folder, short and of safe letters."""
        return name_of(asdict(self))

    @property
    def key(self) -> str:
        """What makes two jobs the same, whatever the commit."""
        return key_of(asdict(self))

    def config(self) -> RunConfig:
        """The recipe's configuration with what is changed in it."""
        values = {n: tuple(v) if isinstance(v, list) else v for n, v in self.changed.items()}
        precision: Any = "bfloat16" if self.precision == "bfloat16" else "float32"
        base, compiled = recipes.load(self.recipe).config, self.execution != "eager"
        return replace(
            base,
            **{"seed": self.seed, "precision": precision, "compile": compiled, **values},
        )


def key_of(values: Mapping[str, Any]) -> str:
    """The same for a job and for the line that it left.

    Another execution is another way to the same error, but not to the same memory and time.
    """
    names = ["kind", "recipe", "seed", "precision", "changed"]
    names += [] if values["kind"] == "train" else ["execution"]
    return json.dumps({name: values[name] for name in names}, sort_keys=True)


def name_of(values: Mapping[str, Any]) -> str:
    """The folder's name of a job, or of the line that it left."""
    digest = hashlib.sha256(key_of(values).encode()).hexdigest()[:8]
    how = "" if values["execution"] == "eager" else f"-{values['execution']}"  # a run goes on as it began
    return f"{values['recipe']}-seed{values['seed']}-{digest}{how}"


def training_jobs(patterns: Sequence[str], *, seeds: Iterable[int], **options: Any) -> Iterator[Job]:
    """One job a recipe and seed: the first seed of every recipe, then the second.

    Raises:
        UnknownName: a pattern that no recipe matches.
    """
    names = [name for pattern in patterns for name in recipes.list_recipes(pattern) or _known(pattern)]
    for seed in seeds:
        for name in dict.fromkeys(names):
            yield Job(kind="train", recipe=name, seed=seed, **options)


def _known(name: str) -> list[str]:
    return [recipes.load(name).name]  # raises with near names


def read(file: Path) -> list[dict[str, Any]]:
    """All lines; of a job that was done again the last one. A line cut off by a kill is left out."""
    text = file.read_text() if file.is_file() else ""
    rows = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return list({key_of(row): row for row in rows}.values())


def append(file: Path, row: Mapping[str, Any]) -> None:
    """Write a line behind the others, whole or not at all."""
    text = file.read_bytes() if file.is_file() else b""
    whole = len(text) if text.endswith(b"\n") or not text else text.rfind(b"\n") + 1
    if whole < len(text):
        file.write_bytes(text[:whole])
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        stream.write(json.dumps(row) + "\n")
