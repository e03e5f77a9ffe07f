"""Networks that another tool has trained, in files: weights, input ranges of layers, and what they were trained on.

A file is what the other tool's environment hands over to ours: safetensors, which hold no code. Keys are
``weight.<name in the network's state dict>`` and ``input_range.<layer>``; text beside them says the tool with its
settings, data, network, optimisation and seed, versions, and how long training took.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from analogsim.integrations.aihwkit import give_ranges
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import to_mapping
from analogsim.recipes.training.checkpoint import load_weights
from analogsim.recipes.training.loop import Training
from analogsim.utils.tensor_files import read_tensors, write_tensors

_FORMAT = "analogsim-peer-network-1"
_PLACES = ("folder", "download")  # of data, which may lie elsewhere in the other environment
_WEIGHT, _RANGE = "weight.", "input_range."
_ACTION = "peer network"


def question(config: Config, tool: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All that the weights of a network depend on, as it stands in its file.

    Args:
        config: data, network, optimisation and seed.
        tool: that trains.
        settings: of the tool.
    """
    data = {key: value for key, value in to_mapping(config.data).items() if key not in _PLACES}
    asked = {"tool": tool, "settings": dict(settings), "data": data, "model": config.model, "seed": config.seed}
    asked |= {"optimization": to_mapping(config.optimization)}
    return dict(json.loads(json.dumps(asked)))  # lists for tuples, as a file gives them back


def path_of(folder: Path, asked: Mapping[str, Any]) -> Path:
    """Where the file of a network lies: by what it was trained on."""
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{asked['tool']}-{key}.safetensors"


@dataclass(frozen=True)
class PeerNetwork:
    """A network as another tool has left it.

    Args:
        asked: what it was trained on, from `question`.
        weights: its state dict, under the names of the digital network.
        ranges: the input ranges of its layers, one number for each block of rows, in units of the layer's input.
        seconds: of processor time that its steps took.
        versions: of the tool and of torch.
    """

    asked: dict[str, Any]
    weights: Mapping[str, Tensor]
    ranges: Mapping[str, Tensor]
    seconds: float
    versions: Mapping[str, str]

    def save(self, folder: Path) -> Path:
        """Write it to where `path_of` looks for it, and say where.

        Raises:
            OSError: it cannot be written.
        """
        path = path_of(folder, self.asked)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {_WEIGHT + name: value.detach().contiguous() for name, value in self.weights.items()}
        tensors |= {_RANGE + name: value.detach().contiguous() for name, value in self.ranges.items()}
        said = {"format": _FORMAT, "asked": self.asked, "seconds": self.seconds, "versions": dict(self.versions)}
        write_tensors(path, tensors, {name: json.dumps(value) for name, value in said.items()}, _ACTION)
        return path

    @classmethod
    def load(cls, folder: Path, asked: Mapping[str, Any]) -> PeerNetwork:
        """Read the network that was trained on what is asked.

        Raises:
            FileNotFoundError: nobody has trained it.
            ValueError: the file is of another kind, is damaged, or is of a network that was trained on something else.
        """
        path = path_of(folder, asked)
        tensors, said = read_tensors(path, _ACTION, "is not a network of another tool")
        try:
            told = {name: json.loads(text) for name, text in said.items()}
        except ValueError:
            told = {}
        if told.get("format") != _FORMAT:
            raise ValueError(f"{_ACTION}: {str(path)!r} was not written by python -m benchmarks.beside ({_FORMAT})")
        different = [key for key in asked if told["asked"].get(key) != asked[key]]
        if different:
            key = different[0]
            raise ValueError(
                f"{_ACTION}: {str(path)!r} was trained with {key}={told['asked'].get(key)!r}, now it is "
                f"{asked[key]!r}; remove it, and train it anew"
            )

        def under(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        return cls(told["asked"], under(_WEIGHT), under(_RANGE), told["seconds"], told["versions"])

    def give_to(self, training: Training) -> None:
        """Let a training end with this network: its weights, and its ranges on the crossbar that learns them.

        The checkpoint is then as any other of a hardware-aware network, for whatever judges those.

        Args:
            training: of the same network and epochs; hardware-aware, on a crossbar whose input ranges are learned.

        Raises:
            ValueError: it is of another network, or its layers and their blocks are not those of the crossbar.
        """
        source = f"the network of {self.asked['tool']}"
        load_weights(training.model, dict(self.weights), source)
        give_ranges(training.analog, self.ranges, source)
        training.epoch = training.config.optimization.epochs
        training.save()
