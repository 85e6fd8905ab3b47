"""From a run's folder back to what was trained: network, heads, data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from infopro.data import ImageData
from infopro.local import LocalModel
from infopro.recipes._config import RunConfig
from infopro.recipes._session import example_images, make_local, make_network, open_with_data
from infopro.training import Checkpoint, RunFolder, load_local

__all__ = ["LoadedRun", "load_run"]


@dataclass(frozen=True)
class LoadedRun:
    """A run as it was when its checkpoint was written, without its optimizer."""

    config: RunConfig
    data: ImageData
    local: LocalModel  # with the heads of the run's objective; its network is `local.model`
    folder: RunFolder
    state: Checkpoint


def load_run(
    path: Path,
    *,
    data_dir: Path | None = None,
    download: bool = False,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
) -> LoadedRun:
    """A trained local model and its data, from the folder that `infopro train` wrote.

    The network is cut where the run cut it, whatever this version would choose. Random streams are left as
    they were.

    Args:
        data_dir: where downloaded sets are looked for; if not given, where the run found them.
        download: fetch a missing set.
        checkpoint: a folder below the run's `checkpoints`; if not given, the newest complete one.

    Raises:
        BadRun: no such folder, no run in it, no checkpoint yet, or a damaged one.
        BadData: the data are not there.

    Example:
        >>> load_run(Path("nowhere"))
        Traceback (most recent call last):
        infopro.errors.BadRun: the run folder does not exist: got nowhere; pass the folder that infopro ...
    """
    device = torch.device(device)
    checkpoint = checkpoint or RunFolder.open(path).last_checkpoint()  # before the data, which may take long
    folder, config, data = open_with_data(path, data_dir=data_dir, download=download, device=device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model = make_network(config, data, device)
        cuts = folder.record.get("cuts", config.cuts)
        local = make_local(config, model, data, example_images(data, device), cuts=cuts)
    return LoadedRun(config, data, local, folder, load_local(checkpoint, local))
