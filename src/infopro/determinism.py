"""Only operations that give the same bits each time: torch's switches, put back afterwards."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from infopro.errors import BadConfiguration

__all__ = ["deterministic"]

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS reads it when it is first used in a process


@contextmanager
def deterministic(wanted: bool = True) -> Iterator[None]:
    """While open, an operation without a deterministic kernel raises, and cuDNN takes no other kernels.

    Nothing happens where it is not `wanted`. What was set before is set again at the end. For CUDA's matrix
    products open it before the first one of the process.

    Raises:
        BadConfiguration: an operation inside has no deterministic kernel on its device; the message names it.

    Example:
        >>> with deterministic():
        ...     torch.are_deterministic_algorithms_enabled()
        True
        >>> torch.are_deterministic_algorithms_enabled()
        False
    """
    if not wanted:
        yield
        return
    algorithms = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    workspace = os.environ.get(_WORKSPACE)
    os.environ.setdefault(_WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        explained = _explained(error)
        if explained is None:
            raise
        raise explained from error
    finally:
        torch.use_deterministic_algorithms(algorithms, warn_only=warns)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)


def _explained(error: RuntimeError) -> BadConfiguration | None:
    """torch's own error names the operation, and then how to program around it."""
    found = re.search(r"(\S+) does not have a deterministic implementation", str(error))
    if found is not None:
        return BadConfiguration(
            "an operation has no deterministic kernel on this device",
            got=found[1],
            remedy="leave --deterministic out, take --device cpu, or another network, head or decoder",
        )
    if _WORKSPACE in str(error):
        return BadConfiguration(
            "cuBLAS was not told to be deterministic",
            got=f"{_WORKSPACE}={os.environ.get(_WORKSPACE, '')}",
            allowed=":4096:8 or :16:8",
            remedy="set it, or leave it out of the environment",
        )
    return None
