"""What happens to a chip: programming, drift, calibration, compensation, faults, files."""

from analogsim.chip.calibration import calibrate
from analogsim.chip.compensation import (
    COMPENSATIONS,
    Adjustment,
    BatchNormStatistics,
    CalibratedRanges,
    CalibrationData,
    Compensation,
    Compensations,
    Gain,
    MatchedOutputs,
)
from analogsim.chip.faults import draw_faults, remap
from analogsim.chip.file import load_chip, save_chip
from analogsim.chip.lifecycle import drift, erase, program, programmed
from analogsim.chip.outputs import MatrixOutputs, OutputCalibration, calibrate_outputs
from analogsim.chip.percentile_search import PercentileSearch, search_percentile
from analogsim.chip.range_search import RangeSearch, search_ranges
from analogsim.chip.ranges import get_ranges, range_parameters, set_ranges

__all__ = [
    "COMPENSATIONS",
    "Adjustment",
    "BatchNormStatistics",
    "CalibratedRanges",
    "CalibrationData",
    "Compensation",
    "Compensations",
    "Gain",
    "MatchedOutputs",
    "MatrixOutputs",
    "OutputCalibration",
    "PercentileSearch",
    "RangeSearch",
    "calibrate",
    "calibrate_outputs",
    "draw_faults",
    "drift",
    "erase",
    "get_ranges",
    "load_chip",
    "program",
    "programmed",
    "range_parameters",
    "remap",
    "save_chip",
    "search_percentile",
    "search_ranges",
    "set_ranges",
]
