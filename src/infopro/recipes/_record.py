"""What a run writes down at its start: all that is needed to repeat it, report it and use its network."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infopro.recipes._fingerprint import data_hash, source_hash
from infopro.recipes._session import Session
from infopro.recipes._stored import plain
from infopro.training import describe_environment

__all__ = ["run_record"]


def run_record(
    session: Session, name: str, data_dir: Path | None, launch: Mapping[str, Any]
) -> dict[str, Any]:
    """Plain values for `run.json`.

    Args:
        launch: how the processes were told to work, as far as it is no part of the configuration.
    """
    processes = session.processes
    return {
        "name": name,
        "command": shlex.join(["infopro", *sys.argv[1:]]),
        "configuration": plain(session.config),
        "parallel": session.config.parallel,
        "processes": 1 if processes is None else processes.num_stages * processes.replicas,
        "device": session.device.type,
        "launch": dict(launch),
        "data_dir": None if data_dir is None else str(data_dir.resolve()),
        "data_hash": data_hash(session.data),
        "initial_weights": None if session.initial_weights is None else asdict(session.initial_weights),
        "cuts": list(session.local.split.cuts),
        "split_notes": list(session.local.split.notes),
        # what a report needs to predict memory and operations without the data
        "image_shape": list(session.data.image_shape),
        "num_classes": session.data.num_classes,
        "has_masks": session.data.has_masks,
        # what a prediction needs without the data
        "class_names": list(session.data.class_names),
        "colours": [list(colour) for colour in session.data.colours],
        "mean": list(session.data.mean),
        "std": list(session.data.std),
        "train_images": len(session.data.train),
        "test_images": len(session.data.test),
        "skipped_images": dict(session.data.skipped),
        "source_hash": source_hash(),
        "environment": describe_environment(session.device),
    }
