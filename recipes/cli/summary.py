"""What of a network would run analog, and what not: ``analogsim summary resnet20``."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from dataclasses import asdict

import analogsim
from analogsim.recipes.config.arguments import Program
from analogsim.recipes.tasks import data_sets, networks
from analogsim.recipes.tasks.references import is_reference


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the layers of a network: what would run analog on a device, and what not, and why."
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="mlp, lenet5, resnet20, audio-cnn, ..., a torchvision classifier, or file.py:factory",
    )
    parser.add_argument("--device", default="pcm", help="device model; default: pcm")
    parser.add_argument("--crossbar", default="ideal", help="array, converters and wires; default: ideal")
    parser.add_argument("--data", help="what a network is made for, as in train; default for a name: digits")


def _run(options: argparse.Namespace) -> object:
    networks.check_model(options.model)
    model = networks.make_network(options.model, _facts(options.data, options.model), seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", analogsim.ConversionWarning)  # the table says it all
        analog = analogsim.convert(model, options.device, crossbar=options.crossbar)
    found = analogsim.summary(analog)
    print(found)
    return {"model": found.model, "analog_share": found.analog_share, "layers": [asdict(row) for row in found.rows]}


def _facts(data: str | None, model: str) -> Mapping[str, object]:
    """What a network may ask for; of the data sets with names without a look at them."""
    if data is None and is_reference(model):
        return {}
    data = "digits" if data is None else data
    if data not in data_sets.SHAPES:
        return data_sets.load(data).facts
    shape, classes = data_sets.SHAPES[data]
    return {"shape": shape, "classes": classes, "outputs": classes}


PROGRAM = Program(
    "summary",
    "what of a network would run analog, and what not",
    _declare,
    _run,
    examples=("summary resnet20", 'summary mlp --device "gaussian(std=0.1)" --data mnist'),
    result="the layers",
)
