"""What a run is made with."""

from __future__ import annotations

import contextlib
import importlib
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path


def environment_tags() -> dict[str, str]:
    """Say what a run is made with: versions, git commit of the working directory, processor and GPU."""
    import torch

    tags = {"version.python": platform.python_version(), "version.torch": str(torch.__version__)}
    for name, package in (("analogsim", "analogsim-torch"), ("numpy", "numpy"), ("mlflow", "mlflow")):
        with contextlib.suppress(metadata.PackageNotFoundError):
            tags[f"version.{name}"] = metadata.version(package)
    if "version.analogsim" not in tags:  # a checkout that is not installed
        tags["version.analogsim"] = str(getattr(importlib.import_module("analogsim"), "__version__", "unknown"))
    commit = _git("rev-parse", "HEAD")
    if commit:
        # the second name is the one that MLflow's UI shows
        tags |= {"git.commit": commit, "mlflow.source.git.commit": commit}
        changes = _git("--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
        if changes is not None:
            tags["git.dirty"] = "true" if changes else "false"
    tags["hardware.cpu"] = f"{_processor()}, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        tags["hardware.gpu"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return tags


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()
