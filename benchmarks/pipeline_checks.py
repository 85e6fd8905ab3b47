"""Whether what `pipeline.py` times computes what it should."""

from __future__ import annotations

import hashlib

import torch
from pipeline_jobs import Job
from pipeline_training import build, make_batches, optimizer_of

from infopro.local import LocalModel

__all__ = ["accumulate", "deviation", "digests"]


def digests(local: LocalModel, names: set[str] | None = None) -> dict[str, str]:
    """Every weight and buffer, by name, as a hash of its bytes."""
    state = local.state_dict()
    kept = state.keys() if names is None else names & state.keys()
    return {
        name: hashlib.sha256(state[name].contiguous().numpy().tobytes()).hexdigest() for name in sorted(kept)
    }


def accumulate(job: Job) -> None:
    """Microbatches one after the other in one process: what pipelines and data parallel runs must give."""
    local, (images, targets) = build(job), make_batches(job)[0]
    optimizer = optimizer_of(local.parameters())
    before = {name: p.detach().clone() for name, p in local.named_parameters()}
    for own, labels in zip(images.chunk(job.microbatches), targets.chunk(job.microbatches), strict=True):
        local.backward(own, labels)
    for parameter in local.parameters():
        assert parameter.grad is not None
        parameter.grad /= job.microbatches
    optimizer.step()
    after = {name: p.detach().clone() for name, p in local.named_parameters()}
    torch.save({"before": before, "after": after}, job.reference)


def deviation(job: Job, local: LocalModel, names: set[str]) -> dict[str, float]:
    """How far the update of these parameters is from that of `accumulate`, relative to its size, at worst.

    Empty for a job that is not compared; also says how many parameters were.
    """
    if not job.reference:
        return {}
    stored = torch.load(job.reference, weights_only=True)
    found: list[float] = []
    for name, parameter in local.named_parameters():
        if name in names:
            wanted = stored["after"][name]
            size = float((wanted - stored["before"][name]).norm())
            found.append(float((parameter.detach() - wanted).norm()) / size)
    return {"deviation": max(found), "compared": len(found)}
