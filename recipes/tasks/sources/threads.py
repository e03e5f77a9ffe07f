"""Many files read by several threads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

CHUNK = 64
"""Files that one thread takes at a time."""

_Value = TypeVar("_Value")
_Result = TypeVar("_Result")


def in_threads(function: Callable[[_Value], _Result], values: Sequence[_Value]) -> list[_Result]:
    """The function of each value, in order; the first error is raised, and the rest left."""
    chunks = [values[at : at + CHUNK] for at in range(0, len(values), CHUNK)]

    def each(chunk: Sequence[_Value]) -> list[_Result]:
        return [function(value) for value in chunk]

    with warnings.catch_warnings():  # here, as threads share what it sets
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # of metadata that are not used
        if len(chunks) < 2:
            return [result for chunk in chunks for result in each(chunk)]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            try:
                return [result for results in pool.map(each, chunks) for result in results]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
