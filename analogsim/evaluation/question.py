"""What chips are judged by, in digests and text: the same question has the same ones, in any process."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from analogsim.evaluation.course import Course
from analogsim.evaluation.metrics import Accumulator, Metric
from analogsim.layers.module import matrices_of
from analogsim.utils.digests import digest, without_addresses


def describe_question(
    course: Course, *, clean: float, device: str, sampling: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The question that a course puts to chips, whichever they are.

    Args:
        course: what chips go through.
        clean: the score of the digital network.
        device: the hardware, in words.
        sampling: how chips are asked part of the data, and which is the first of them: what later ones are asked
            follows from what earlier ones answered. None: they are asked everything.
    """
    analog = course.analog
    states = [matrix.analog for matrix in matrices_of(analog)]
    tensors = [*analog.named_parameters(remove_duplicate=False), *analog.named_buffers(remove_duplicate=False)]
    hardware = [
        (state.name, state.device, state.crossbar, state.layout, state.input_range, state.output_bound)
        for state in states
    ]
    adapters = [(state.name, state.adapter) for state in states if state.adapter is not None]
    data = course.compensations.adjustments and course.calibration.loader
    corrections = course.compensations.gain, course.compensations.adjustments
    return {
        "weights": digest(dict(tensors)),
        "network": digest(without_addresses(repr(course.calibration.digital))),
        "hardware": digest((hardware, adapters) if adapters else hardware),
        "device": device,
        "times": list(course.times),
        "metric": course.metric.name,
        "score": digest(_rule(course.metric)),
        "data": digest([digest(batch) for batch in course.data]),  # which may be more than memory holds
        "compensation": course.compensations.text,
        "correction": digest(corrections if course.on_chip is None else (*corrections, course.on_chip)),
        "calibration": digest([digest(batch) for batch in data]) if data else None,
        "faults": None if course.faults is None else digest(course.faults),
        "clean": clean,
        **({} if sampling is None else {"sampling": dict(sampling)}),
    }


def _rule(metric: Metric) -> tuple[object, ...]:
    """What a metric says, apart from what it has taken in so far."""
    score = metric.score
    if isinstance(score, Accumulator):
        score = copy.deepcopy(score)
        score.reset()
    told = score, metric.unit, metric.reads, metric.finite, metric.higher_is_better
    ways = (metric.transform, metric.pick)
    return told if ways == (None, None) else (*told, *ways)
