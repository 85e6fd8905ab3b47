"""What a run must record so that others can repeat it."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

__all__ = ["describe_environment", "processor_name"]

_PACKAGES = (
    *("infopro", "torch", "torchvision", "timm", "segmentation-models-pytorch"),
    *("numpy", "pillow", "scikit-learn", "safetensors"),
)
# they choose among kernels, and so decide how sums are rounded
_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
    *("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA"),
    *("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "NCCL_ALGO", "NCCL_PROTO"),
)


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions, hardware and the source's commit, as plain values."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {n: v for n in _PACKAGES if (v := _version(n))} | {"torch": str(torch.__version__)},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "libraries": _libraries(device),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "source": _source(),
    }


def processor_name() -> str:
    """The processor as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _libraries(device: torch.device) -> dict[str, str]:
    """Of which torch takes its kernels."""
    if device.type != "cuda":
        return {}  # torch's version says which
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {"cuda": str(torch.version.cuda), "cudnn": str(cudnn)}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _source() -> dict[str, Any] | None:
    """The commit of this package's source tree, and whether it was changed; None for an installed wheel."""
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {
            "commit": commit,
            "modified": bool(_git(folder, "status", "--porcelain", "--", str(folder.parent))),
        }
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
