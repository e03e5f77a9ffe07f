"""What can be done for a trained network on chips without labels, tried and kept where it helps."""

from analogsim.evaluation.preparation.planner import prepare
from analogsim.evaluation.preparation.prepared import Prepared, TriedStep

__all__ = ["Prepared", "TriedStep", "prepare"]
