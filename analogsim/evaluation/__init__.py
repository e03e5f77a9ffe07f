"""Scores over chips and times, what each part and each layer costs, and how many operations run analog."""

from analogsim.evaluation.ablation import ALL, Ablation, ablate
from analogsim.evaluation.journal import Journal
from analogsim.evaluation.kept_digital import KeptDigital, Selection, Share
from analogsim.evaluation.layer_sensitivity import Sensitivity, sensitivity
from analogsim.evaluation.metrics import METRICS, Accumulator, Metric
from analogsim.evaluation.monte_carlo import evaluate
from analogsim.evaluation.operations import analog_macs, macs
from analogsim.evaluation.report import Report, compare_plot, compare_table
from analogsim.evaluation.workers import Chunked

__all__ = [
    "ALL",
    "METRICS",
    "Ablation",
    "Accumulator",
    "Chunked",
    "Journal",
    "KeptDigital",
    "Metric",
    "Report",
    "Selection",
    "Sensitivity",
    "Share",
    "ablate",
    "analog_macs",
    "compare_plot",
    "compare_table",
    "evaluate",
    "macs",
    "sensitivity",
]
