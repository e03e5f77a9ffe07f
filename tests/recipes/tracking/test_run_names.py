from __future__ import annotations

from analogsim.evaluation.display import COLORS
from analogsim.recipes.config.options import Config, DataOptions
from analogsim.recipes.tracking.run_names import facts_of, folder_end, run_color, run_name


def test_names_begin_with_what_differs() -> None:
    config = Config(device="gaussian(std=0.05)", model="mlp")
    assert facts_of(config, "hardware-aware") == "hardware-aware, gaussian(std=0.05), mlp, digits"
    folder = f"20260101-120000-{folder_end(config)}"
    assert folder == "20260101-120000-digits-mlp-gaussian_std_0.05_"
    assert run_name(config, "plain", folder) == "plain, gaussian(std=0.05), mlp, digits, 20260101-120000"
    assert run_name(config, "plain", f"{folder}-2") == "plain, gaussian(std=0.05), mlp, digits, 20260101-120000-2"
    assert run_name(config, "plain", "my run") == "plain, gaussian(std=0.05), mlp, digits, my run"


def test_a_folder_has_a_name_for_any_file_system() -> None:
    config = Config(device="gaussian(std=0.1)+gaussian(std=0.2)", data=DataOptions(name="folder:a b/c"))
    assert not set(folder_end(config)) & set(' :/()+="')


def test_a_device_that_is_registered_nowhere_is_called_by_its_name() -> None:
    assert facts_of(Config(device="not-here(a=1)", model="mlp"), "plain") == "plain, not-here, mlp, digits"


def test_runs_of_one_folder_have_different_colors() -> None:
    colors = [run_color("a folder", place)["mlflow.runColor"] for place in range(len(COLORS))]
    assert sorted(colors) == sorted(COLORS)
