"""A run's checkpoint, to which every process gives what it holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from infopro.engines import Pipeline
from infopro.recipes._session import Session
from infopro.recipes._stored import plain
from infopro.training import (
    KEPT,
    Checkpoint,
    Position,
    RunFolder,
    publish,
    save_checkpoint,
    take_part,
    write_shard,
)

__all__ = ["save_state"]


def save_state(session: Session, folder: RunFolder, position: Position, *, keep: int = KEPT) -> None:
    """A checkpoint, of which each process writes what it holds; the last `keep` and the best epoch's stay."""
    engine, local = session.engine, session.local
    sums = asdict(position.sums)
    totals = sums if position.step else {"watched": sums["watched"]}
    state = Checkpoint(
        epoch=position.epoch,
        best_test_error=position.best_test_error,
        configuration=plain(session.config),
        step=position.step,
        totals=totals,
    )
    best = folder.best_name() if engine.writes else None
    kept: dict[str, Any] = {"keep": keep, "spare": () if best is None else (best,)}
    averages = session.averages
    beside: dict[str, Any] = {"averages": averages, "replicas": position.replicas}
    with engine.span("checkpoint"):
        if len(engine.stages) == len(local.stages):
            if engine.writes:
                save_checkpoint(folder.checkpoint_folder, local, session.optimizer, state, **beside, **kept)
            else:
                names = local.state_dict().keys()
                take_part(local, session.optimizer, averages=averages, names=names)
            return
        assert isinstance(engine, Pipeline)
        shard = None
        if engine.replica == 0:
            name = f"{engine.stages.start + 1}-of-{len(local.stages)}"
            shard = write_shard(
                folder.checkpoint_folder,
                local,
                session.optimizer,
                state,
                **beside,
                shard=name,
                names=engine.names(),
            )
        else:
            take_part(local, session.optimizer, averages=averages, names=engine.names())
        shards = engine.gather(shard)
        if shards is not None:
            publish(folder.checkpoint_folder, state, shards, **kept)
