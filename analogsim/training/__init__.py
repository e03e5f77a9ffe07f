"""What training with noise is steered by: how much of it, its schedule, clipping of weights, what makes a step."""

from analogsim.training.step import Loss, Step, plain_step, same_noise

__all__ = ["Loss", "Step", "plain_step", "same_noise"]
