"""What MLflow is told of the data of a run: a name, and a digest that other data do not have."""

from __future__ import annotations

import json
from collections.abc import Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.utils.data import TensorDataset

from analogsim.recipes.config.options import Config
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.recipes.tasks.references import short
from analogsim.utils.digests import digest

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

_LOOKED_AT = 64  # samples of a part, so that the largest costs milliseconds
_DIGITS = 16  # of a digest; MLflow takes 36
_CONTEXTS = {"training": "train", "evaluation": "test"}  # MLflow's words, and the parts


@dataclass(frozen=True)
class UsedData:
    """Data as a run used them.

    Attributes:
        name: of the data set.
        digest: of how they were taken, and of some samples, where these are in memory.
        context: what for: "training" or "evaluation".
        part: of the data: "train" or "test".
        rows: samples in that part; None where that is not known.
    """

    name: str
    digest: str
    context: str
    part: str
    rows: int | None

    def as_input(self) -> DatasetInput:
        """The same for MLflow."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"data": self.name, "part": self.part})
        profile = None if self.rows is None else json.dumps({"num_rows": self.rows})
        data = Dataset(self.name, self.digest, "analogsim", source, profile=profile)
        return DatasetInput(data, [InputTag("mlflow.data.context", self.context)])


def used_data(config: Config, data: Splits) -> list[UsedData]:
    """What a network is trained and judged on."""
    name = short(config.data.name)[:200]
    how = (name, config.data.limit, config.data.validation, config.seed)
    found = []
    for context, part in _CONTEXTS.items():
        samples = getattr(data, part)
        rows = len(samples) if isinstance(samples, Sized) else None
        found.append(UsedData(name, digest((part, rows, how, _some(samples)))[:_DIGITS], context, part, rows))
    return found


def _some(samples: Any) -> Any:
    """Samples from all over a part that is in memory; others may differ each time they are read."""
    if not isinstance(samples, TensorDataset):
        return None
    step = max(1, len(samples) // _LOOKED_AT)
    return [tensor[::step].clone() for tensor in samples.tensors]
