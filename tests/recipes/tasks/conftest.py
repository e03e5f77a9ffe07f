import pytest

from analogsim.recipes.tasks import data_sets


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory, and no data sets of the system."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data_sets, "_SYSTEM", {"fashion-mnist": tmp_path / "system"})
