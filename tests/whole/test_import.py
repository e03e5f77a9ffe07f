from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import analogsim

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    *("lightning", "accelerate", "huggingface_hub", "lm_eval", "aihwkit", "aihwkit_lightning"),
    *("optuna", "mlflow", "torchvision", "transformers", "timm", "matplotlib", "pandas", "sklearn", "tqdm"),
    *("scipy.optimize", "scipy.stats", "torch._dynamo", "torch._inductor", "torch.utils.flop_counter"),
)

# Each stays as long as somebody may have written it.
PUBLIC = (
    *("Ablation", "AnalogLayer", "AnalogModule", "AnalogsimError", "Audit", "AuditError", "Cells", "ClipSchedule"),
    "ConversionWarning",
    *("Crossbar", "DeviceModel", "Drift", "Effect", "FitWarning", "Gaussian", "KeptDigital", "Mapping"),
    *("NoiseSchedule", "NotCalibratedError", "NotProgrammedError", "NotRoutedError", "Prepared", "Quantization"),
    *("ReadNoise", "Report", "Sensitivity", "Slot", "StaleChipError", "StuckAt", "Wires", "ablate"),
    *("adapter_parameters", "add_adapters", "analog_macs", "as_crossbar", "as_device_model", "audit"),
    *("available_devices", "calibrate", "calibrate_outputs", "clip_weights", "compare_plot", "compare_table"),
    *("convert", "distillation_loss", "draw_faults", "drift", "erase", "evaluate", "fine_tune", "fit_device"),
    *(
        "get_ranges",
        "load_adapters",
        "load_chip",
        "load_device",
        "log_report",
        "macs",
        "param",
        "prepare",
        "program",
        "programmed",
    ),
    *("range_parameters", "reestimate_batch_norm", "register", "register_layer", "register_routed", "remap"),
    *("remove_adapters", "same_noise", "save_adapters", "save_chip", "save_device", "search_percentile"),
    *("search_ranges", "seconds", "sensitivity", "set_noise_scale", "set_ranges", "set_recompute", "set_train_times"),
    *("summary", "to_digital", "use_compiled_noise", "weight_std"),
)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_import_is_light() -> None:
    # Beyond what torch loads by itself, such as tqdm where it finds it.
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        f"import analogsim; print(sorted(set({HEAVY!r}) & (set(sys.modules) - before)))"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["devices", "recipes"])
def test_bare_packages_of_the_checkout_refuse(name: str) -> None:
    if not (ROOT / name).is_dir():  # the tests of an installed wheel, away from the checkout
        pytest.skip("not in a checkout")
    done = python(f"import {name}")
    assert done.returncode != 0
    assert f"ImportError: import analogsim.{name}, not {name}" in done.stderr


def test_what_plug_ins_are_written_with_is_handed_on() -> None:
    """A strict type checker takes what stands in ``__all__`` only."""
    device = ("Cells", "DeviceModel", "Effect", "State", "Written", "as_device_model", "param", "register")
    for module, names in (
        (analogsim.device, device),
        (analogsim.noise, ("KeyedNoise", "Noise", "Scale", "TrainingNoise")),
        (analogsim.mapping, ("Layout", "MappedWeight", "Mapping")),
    ):
        assert set(names) <= set(module.__all__), module.__name__
        assert all(hasattr(module, name) for name in module.__all__), module.__name__


def test_the_public_names_are_these() -> None:
    assert tuple(analogsim.__all__) == PUBLIC


def test_every_public_name_is_there_and_sorted() -> None:
    assert sorted(analogsim.__all__) == analogsim.__all__
    assert len(set(analogsim.__all__)) == len(analogsim.__all__)
    for name in analogsim.__all__:
        assert getattr(analogsim, name).__doc__, name
