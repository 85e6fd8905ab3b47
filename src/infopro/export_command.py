"""`infopro export`: a run's network in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infopro.exporting import Exported, export_run
from infopro.exporting.programs import ONNX, TORCH

__all__ = ["run"]


def run(options: Any) -> str:
    """What was written, and how it is loaded.

    Raises:
        InfoProError: see `infopro.exporting.export_run`.
    """
    exported = export_run(
        Path(options.run),
        Path(options.output),
        best=options.checkpoint == "best",
        onnx=options.onnx,
        pt2=options.pt2,
    )
    found = exported.description
    lines = [f"{options.run}, epoch {found['run']['epoch']}: {_worth(found['test'], found['task'])}"]
    lines += [f"wrote {exported.folder}/: {', '.join(exported.files)}", _loading(exported)]
    return "\n".join(lines)


def _worth(test: dict[str, Any] | None, task: str) -> str:
    if test is None:
        return "not tested: the checkpoint is of no whole epoch"
    return (
        f"test error {test['error']:.2f} %"
        if task == "classification"
        else (f"test mIoU {100 - test['error']:.2f} %")
    )


def _loading(exported: Exported) -> str:
    library = exported.description["library"]["package"]
    if not exported.needs_infopro:
        return f"load.py builds it with {library} {exported.description['library']['version']} alone"
    programs = [file for file in (ONNX, TORCH) if file in exported.files]
    others = (
        f"{' and '.join(programs)} {'do' if len(programs) > 1 else 'does'} not"
        if programs
        else ("--onnx and --pt2 write files that do not")
    )
    return f"the network is one of infopro's own: load.py needs infopro; {others}"
