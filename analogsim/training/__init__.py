"""What training with noise is steered by: how much of it, its schedule, clipping of weights, what makes a step."""

from analogsim.training.clipping import clip_weights
from analogsim.training.repetition import same_noise
from analogsim.training.schedule import ClipSchedule, NoiseSchedule
from analogsim.training.settings import set_noise_scale, set_recompute, set_train_times
from analogsim.training.several_draws import SeveralDraws
from analogsim.training.sharpness import SharpnessAware
from analogsim.training.step import Loss, Step, plain_step
from analogsim.training.weight_spread import weight_std

__all__ = [
    "ClipSchedule",
    "Loss",
    "NoiseSchedule",
    "SeveralDraws",
    "SharpnessAware",
    "Step",
    "clip_weights",
    "plain_step",
    "same_noise",
    "set_noise_scale",
    "set_recompute",
    "set_train_times",
    "weight_std",
]
