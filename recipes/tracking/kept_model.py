"""A trained network on MLflow's own pages of models: its checkpoint, its parameters, and the scores that are its."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient


def model_name(name: str) -> str:
    """A name as MLflow takes it for a model, without ``/ : . %`` and quotes."""
    return re.sub(r"[/:.%\"']+", "_", name)[:200] or "model"


class KeptModel:
    """One model of a run, made at the first `send`; sent again it stays one model.

    Attributes:
        id: MLflow's; empty until it is made.
    """

    def __init__(
        self, name: str, checkpoint: Path, *, run_id: str, experiment_id: str, params: Mapping[str, str], step: int
    ) -> None:
        self.id = ""
        self._name = model_name(name)
        self._checkpoint = checkpoint
        self._run_id = run_id
        self._experiment_id = experiment_id
        self._params = dict(params)
        self._step = step

    def send(self, client: MlflowClient) -> None:
        """Make it, unless the run has it; put the checkpoint into it, and say that it is ready."""
        from mlflow.entities import LoggedModelOutput

        outputs = client.get_run(self._run_id).outputs
        linked = {each.model_id for each in outputs.model_outputs} if outputs is not None else set()
        self.id = self.id or self._found(client) or self._made(client)
        client.log_model_artifact(self.id, str(self._checkpoint))
        if self.id not in linked:
            client.log_outputs(self._run_id, [LoggedModelOutput(self.id, self._step)])
        client.finalize_logged_model(self.id, "READY")

    def _found(self, client: MlflowClient) -> str:
        """The one that was made before a kill, or before an answer was lost."""
        of_run = f"source_run_id = '{self._run_id}' AND name = '{self._name}'"
        found = client.search_logged_models([self._experiment_id], of_run, max_results=1)
        return str(found[0].model_id) if found else ""

    def _made(self, client: MlflowClient) -> str:
        made = client.create_logged_model(
            self._experiment_id, self._name, self._run_id, params=self._params, model_type="analogsim"
        )
        return str(made.model_id)
