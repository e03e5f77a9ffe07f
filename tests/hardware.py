"""Hardware without errors, on which answers can be compared with the digital network's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from torch import Tensor

from analogsim import Crossbar, DeviceModel, Effect, Mapping

LARGE = Crossbar(output_bound=1e9)  # through the signal path, and nothing happens there

PERIPHERIES = pytest.mark.parametrize("periphery", [Crossbar(), LARGE, LARGE.replace(rows=3)], ids=str)


@dataclass(frozen=True)
class Exact(Effect):
    """Programs exactly, and is drawn all the same."""

    def program(self, g: Tensor, cells: Any, noise: Any) -> Tensor:
        return g.clone()


IDEAL = DeviceModel((Exact(),), mapping=Mapping("pair", bias_rows=1))
