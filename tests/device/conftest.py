import pytest

from analogsim.device import registry

BUILT_IN = "analogsim.devices."


@pytest.fixture
def own_registry(monkeypatch):
    """The built-in names alone; what a test registers is gone after it."""
    built_in = {name: made for name, made in registry.factories.items() if made.__module__.startswith(BUILT_IN)}
    monkeypatch.setattr(registry, "factories", built_in)
