"""The judgement of a trained network: what it loses on chips, what that comes from, and which remedy is worth it."""

from analogsim.recipes.judge.program import PROGRAM, judge

__all__ = ["PROGRAM", "judge"]
