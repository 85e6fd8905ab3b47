"""From a run's record to the command that trains it anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infopro import recipes
from infopro.errors import BadRun
from infopro.recipes import RunConfig, from_plain
from infopro.training import RunFolder, refuse_locked

__all__ = ["Repetition", "repetition_of"]

_LAUNCHED = ("pipeline", "data")  # by torchrun


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """What is to be done once more."""

    record: dict[str, Any]  # the run's own
    config: RunConfig  # with the way that its modules were run, and the cuts that were measured
    recipe: str | None  # the recipe that its name is of
    epochs: int  # that the run has finished, of its configuration's
    processes: int | None  # to be started by torchrun; None: this one

    def options(self, base: RunConfig) -> list[str]:
        """For `infopro train`, which would run `base` without them; places and device are not among them."""
        launch = self.record.get("launch") or {}
        given = recipes.as_options(self.config, base)
        given += [f"--{name.replace('_', '-')}={launch[name]}" for name in ("num_workers",) if name in launch]
        if self.config.parallel == "pipeline" and "queue" in launch:
            given.append(f"--queue={launch['queue']}")
        if launch.get("shard"):
            given.append("--shard")
        if self.epochs < self.config.epochs and self.config.parallel != "cached":
            given.append(f"--until={self.epochs}")
        return given


def repetition_of(path: Path) -> Repetition:
    """What a run's folder says about repeating it.

    Raises:
        BadRun: no run there, one that is being trained, one without a finished epoch, or one that no other
            can equal.

    Example:
        >>> repetition_of(Path("nowhere"))
        Traceback (most recent call last):
        infopro.errors.BadRun: the run folder does not exist: got nowhere; pass the folder that infopro ...
    """
    folder = RunFolder.open(path)
    refuse_locked(path)
    record = folder.record
    config = _as_run(from_plain(folder.configuration), record)
    if config.parallel == "decoupled":
        raise BadRun("no two decoupled runs are equal", got=path, allowed="runs of any other --parallel")
    epochs = len(folder.log())
    if not epochs and not (path / "modules.jsonl").is_file():
        raise BadRun("the run has not finished an epoch", got=path, remedy="there is nothing to compare with")
    return Repetition(
        record=record,
        config=config,
        recipe=record["name"] if record.get("name") in recipes.list_recipes() else None,
        epochs=epochs,
        processes=int(record["processes"]) if config.parallel in _LAUNCHED else None,
    )


def _as_run(config: RunConfig, record: dict[str, Any]) -> RunConfig:
    """With what config.json leaves out, cuts that a clock has chosen, the checkpoint of the first weights."""
    config = replace(config, parallel=record.get("parallel", config.parallel))
    if recorded := record.get("initial_weights"):
        config = replace(config, initial_weights=recorded["checkpoint"])
    measured = config.balance == "time" and config.cuts is None and record.get("cuts")
    return replace(config, cuts=tuple(record["cuts"])) if measured else config
