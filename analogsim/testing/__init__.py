"""What device models and analog layers must hold, as tests: subclass a contract next to your own and run pytest."""

from analogsim.testing.device import DeviceContract
from analogsim.testing.layer import LayerContract

__all__ = ["DeviceContract", "LayerContract"]
