"""The power law of each cell: a weighted regression of ln g on L = ln((t + t0)/t0), for all cells at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analogsim.fit.estimate import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Lines:
    """Sums over the readings z = ln g of each cell with weights w, ``(cells,)`` each.

    Args:
        s0, s1, s2: of w, w L, w L².
        z0, z1, zz: of w z, w L z, w z².
        log_variance: of -ln w.
    """

    s0: FloatArray
    s1: FloatArray
    s2: FloatArray
    z0: FloatArray
    z1: FloatArray
    zz: FloatArray
    log_variance: FloatArray

    @classmethod
    def through(cls, z: FloatArray, log_time: FloatArray, variance: FloatArray, cell: IntArray, cells: int) -> Lines:
        """The lines through readings with known variances."""
        weight = 1 / variance
        parts = (weight, weight * log_time, weight * log_time**2, weight * z, weight * log_time * z, weight * z * z)
        return cls(*(np.asarray(np.bincount(cell, part, cells), np.float64) for part in (*parts, np.log(variance))))

    @property
    def determinant(self) -> FloatArray:
        """Of the normal equations; zero for a cell with one time."""
        return np.asarray(self.s0 * self.s2 - self.s1**2)

    @property
    def slope(self) -> FloatArray:
        """Of each line: minus the exponent."""
        return np.asarray((self.s0 * self.z1 - self.s1 * self.z0) / self.determinant)

    @property
    def slope_variance(self) -> FloatArray:
        """Variance of each slope."""
        return np.asarray(self.s0 / self.determinant)

    @property
    def rest(self) -> FloatArray:
        """Weighted sum of squares about each line."""
        intercept = (self.z0 - self.slope * self.s1) / self.s0
        return np.asarray(np.maximum(self.zz - intercept * self.z0 - self.slope * self.z1, 0.0))

    def intercept(self, mean: FloatArray, spread: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The height of each line at L = 0 and its variance, if the exponents have this mean and spread."""
        shrink = spread**2 / (1 + spread**2 * self.s2)
        weight = self.s0 - shrink * self.s1**2
        z0, z1 = self.z0 + mean * self.s1, self.z1 + mean * self.s2
        return np.asarray((z0 - shrink * self.s1 * z1) / weight), np.asarray(1 / weight)
