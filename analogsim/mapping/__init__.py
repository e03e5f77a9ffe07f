"""From weights to conductances and back, and the blocks of crossbars that they lie in."""

from analogsim.mapping.layout import Layout
from analogsim.mapping.mapped_weight import MappedWeight
from analogsim.mapping.mapping import Mapping

__all__ = ["Layout", "MappedWeight", "Mapping"]
