from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from analogsim.recipes.tracking import environment
from analogsim.recipes.tracking.tracked_run import check_name


def test_the_environment_is_told(alone: Path) -> None:
    tags = environment.environment_tags()
    assert {"version.analogsim", "version.numpy", "version.mlflow", "hardware.cpu"} <= tags.keys()
    assert tags["version.torch"] == torch.__version__
    assert tags["hardware.cpu"].endswith(" threads")
    assert "git.commit" not in tags
    assert ("hardware.gpu" in tags) == torch.cuda.is_available()
    for key in tags:
        check_name("tag", key)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_git_commit_is_told(alone: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *who, *arguments], check=True, capture_output=True, text=True).stdout

    git("init")
    assert "git.commit" not in environment.environment_tags()
    Path("a.txt").write_text("1")
    git("add", "a.txt")
    git("commit", "-m", "first")
    tags = environment.environment_tags()
    assert tags["git.commit"] == git("rev-parse", "HEAD").strip()
    assert tags["git.dirty"] == "false"
    Path("a.txt").write_text("2")
    assert environment.environment_tags()["git.dirty"] == "true"
