"""analogsim: what is left of a PyTorch network on analog in-memory hardware, and training that survives it."""

import sys as _sys
from pathlib import Path as _Path

from analogsim.utils.moved import find_parts as _find_parts
from analogsim.utils.moved import put_signposts as _put_signposts

__version__ = "0.1.0"

# Before anything heavy: who asks for the version only need not wait for torch, which the command line would import.
_asked = _sys.orig_argv[1:]
if _asked[-3:] == ["-m", "analogsim", "--version"] or (
    _asked[1:] == ["--version"] and _Path(_asked[0]).stem == "analogsim"
):
    print(f"analogsim {__version__}")
    raise SystemExit(0)

__path__ += _find_parts(_Path(__file__).resolve().parent)

from analogsim import devices as devices
from analogsim.chip.adapters.attached import adapter_parameters, add_adapters, remove_adapters
from analogsim.chip.adapters.files import load_adapters, save_adapters
from analogsim.chip.adapters.fine_tuning import distillation_loss, fine_tune
from analogsim.chip.batch_norm import reestimate_batch_norm
from analogsim.chip.calibration import calibrate
from analogsim.chip.faults import draw_faults, remap
from analogsim.chip.file import load_chip, save_chip
from analogsim.chip.lifecycle import drift, erase, program, programmed
from analogsim.chip.outputs import calibrate_outputs
from analogsim.chip.percentile_search import search_percentile
from analogsim.chip.range_search import search_ranges
from analogsim.chip.ranges import get_ranges, range_parameters, set_ranges
from analogsim.conversion.analog import convert
from analogsim.conversion.digital import to_digital
from analogsim.crossbar.crossbar import Crossbar, as_crossbar
from analogsim.crossbar.wires import Wires
from analogsim.device.file import load_device, save_device
from analogsim.device.model import Cells, DeviceModel, Effect
from analogsim.device.model import State as State  # to annotate effects with
from analogsim.device.parameters import param
from analogsim.device.parse import as_device_model
from analogsim.device.registry import available_devices, register
from analogsim.devices import Drift, Gaussian, Quantization, ReadNoise, StuckAt
from analogsim.errors import (
    AnalogsimError,
    ConversionWarning,
    FitWarning,
    NotCalibratedError,
    NotProgrammedError,
    NotRoutedError,
    StaleChipError,
)
from analogsim.evaluation.ablation import Ablation, ablate
from analogsim.evaluation.kept_digital import KeptDigital
from analogsim.evaluation.layer_sensitivity import Sensitivity, sensitivity
from analogsim.evaluation.monte_carlo import evaluate
from analogsim.evaluation.operations import analog_macs, macs
from analogsim.evaluation.preparation import Prepared, prepare
from analogsim.evaluation.report import Report, compare_plot, compare_table
from analogsim.fit import fit_device
from analogsim.inspection.carrying import Audit, AuditError, audit
from analogsim.inspection.overview import summary
from analogsim.integrations.mlflow import log_report
from analogsim.layers import AnalogLayer, AnalogModule, Slot, register_layer, register_routed
from analogsim.mapping.mapping import Mapping
from analogsim.noise.sources import Noise as Noise
from analogsim.noise.sources import use_compiled_noise
from analogsim.training.clipping import clip_weights
from analogsim.training.repetition import same_noise
from analogsim.training.schedule import ClipSchedule, NoiseSchedule
from analogsim.training.settings import set_noise_scale, set_recompute, set_train_times
from analogsim.training.weight_spread import weight_std
from analogsim.utils.times import seconds

_put_signposts()

__all__ = [
    "Ablation",
    "AnalogLayer",
    "AnalogModule",
    "AnalogsimError",
    "Audit",
    "AuditError",
    "Cells",
    "ClipSchedule",
    "ConversionWarning",
    "Crossbar",
    "DeviceModel",
    "Drift",
    "Effect",
    "FitWarning",
    "Gaussian",
    "KeptDigital",
    "Mapping",
    "NoiseSchedule",
    "NotCalibratedError",
    "NotProgrammedError",
    "NotRoutedError",
    "Prepared",
    "Quantization",
    "ReadNoise",
    "Report",
    "Sensitivity",
    "Slot",
    "StaleChipError",
    "StuckAt",
    "Wires",
    "ablate",
    "adapter_parameters",
    "add_adapters",
    "analog_macs",
    "as_crossbar",
    "as_device_model",
    "audit",
    "available_devices",
    "calibrate",
    "calibrate_outputs",
    "clip_weights",
    "compare_plot",
    "compare_table",
    "convert",
    "distillation_loss",
    "draw_faults",
    "drift",
    "erase",
    "evaluate",
    "fine_tune",
    "fit_device",
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
    "range_parameters",
    "reestimate_batch_norm",
    "register",
    "register_layer",
    "register_routed",
    "remap",
    "remove_adapters",
    "same_noise",
    "save_adapters",
    "save_chip",
    "save_device",
    "search_percentile",
    "search_ranges",
    "seconds",
    "sensitivity",
    "set_noise_scale",
    "set_ranges",
    "set_recompute",
    "set_train_times",
    "summary",
    "to_digital",
    "use_compiled_noise",
    "weight_std",
]
