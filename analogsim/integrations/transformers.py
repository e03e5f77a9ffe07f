"""A `TrainerCallback` for the `Trainer` of transformers, and twins that `from_pretrained` gives back.

    Trainer(model=analog, callbacks=[HardwareCallback()], ...)

    analog = AutoModel.from_pretrained(name, quantization_config=AnalogConfig("pcm", crossbar="standard"))
    analog.save_pretrained(folder)              # or push_to_hub
    again = AutoModel.from_pretrained(folder)   # the same twin, of config.json alone

For the last line this module must have been imported, by which transformers gets to know ``"analogsim"`` as a method of
quantization. Needs the extra ``frameworks``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from analogsim.chip.compensation import CompensationLike
from analogsim.conversion.analog import convert
from analogsim.conversion.digital import to_digital
from analogsim.conversion.patterns import Crossbars, Devices
from analogsim.crossbar.crossbar import CrossbarLike
from analogsim.device.parse import DeviceLike
from analogsim.errors import InvalidTypeError, MissingPackageError
from analogsim.integrations.course import (
    NOISE,
    Course,
    Settings,
    check_optimizers,
    clear_range_gradients,
    part_noise,
    plain_ranges,
    set_plain_ranges,
)
from analogsim.integrations.hardware_text import (
    plain_crossbar,
    plain_device,
    plain_hardware,
    read_plain_crossbar,
    read_plain_device,
)
from analogsim.utils.packages import how_to_install

try:
    from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.quantizers.auto import register_quantization_config, register_quantizer
    from transformers.quantizers.base import HfQuantizer
    from transformers.trainer_callback import ExportableState
    from transformers.utils.quantization_config import QuantizationConfigMixin
except ImportError as error:
    raise MissingPackageError(
        f"analogsim.integrations.transformers needs transformers: {error}; {how_to_install('frameworks')}"
    ) from error


class HardwareCallback(TrainerCallback, ExportableState):
    """Moves the noise of training, clips weights, and has a chip ready whenever the trainer evaluates in training.

    In eval mode a twin answers as a chip does, and there is none while weights change: without `analogsim.program` the
    trainer's evaluation ends in a NotProgrammedError. What ``compute_metrics`` gives is the score of a chip of this
    age, for ``metric_for_best_model``, for early stopping and for what ``report_to`` names. For an evaluation by hand:
    ``with analogsim.programmed(analog, seed=0, t="1d"): trainer.evaluate()``.

    Ranges of converters are in the trainer's checkpoints (``trainer_state.json``) and come back from them, with
    ``resume_from_checkpoint`` and ``load_best_model_at_end``. Learned ones are for the optimizer that one gives the
    trainer: ``Trainer(optimizers=(AdamW([*model.parameters(), *range_parameters(analog)]), None))``.

    Args:
        noise: arguments of `analogsim.NoiseSchedule`; ``steps`` is the length of the training unless it is named. None:
            the noise is left to others.
        clip: arguments of `analogsim.ClipSchedule`, such as ``{"end": 2.5, "per": "column"}``; None: no clipping.
        time: age of the chip on which the trainer evaluates.
        seed: which chip.
        compensation: see `analogsim.drift`.

    Raises:
        TypeError: settings that are no mapping, or a seed that is no integer.
        ValueError: a time before programming, an unknown compensation; in `Trainer.train`: the model has no analog
            layer, or a schedule refuses its arguments.
    """

    def __init__(
        self,
        *,
        noise: Settings | None = NOISE,
        clip: Settings | None = None,
        time: float | str = "1d",
        seed: int = 0,
        compensation: CompensationLike = "global",
    ) -> None:
        self.course = Course(noise, clip, time, seed, compensation)
        self._model: nn.Module | None = None

    def state(self) -> dict[str, Any]:
        """For ``trainer_state.json``: the arguments, and the ranges as they are now."""
        course = self.course
        compensation = course.compensation if isinstance(course.compensation, str | None) else repr(course.compensation)
        return {
            "args": {
                "noise": None if course.noise is None else dict(course.noise),
                "clip": None if course.clip is None else dict(course.clip),
                "time": course.time,
                "seed": course.seed,
                "compensation": compensation,
            },
            "attributes": {} if self._model is None else {"ranges": plain_ranges(self._model)},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> HardwareCallback:
        """For ``restore_callback_states_from_checkpoint``; ranges are set when the training begins.

        Raises:
            ValueError: the checkpoint's compensation was none that has a name.
        """
        return cls(**state["args"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Schedules and ranges as where a resumed training goes on from; noise of its own for each process."""
        self._model = others["model"]
        self.course.begin(self._model, state.max_steps)
        self.course.at(state.global_step)
        if state.global_step:
            kept: Any = state.stateful_callbacks  # plain mappings, as in the file
            self._set_ranges_of(kept or {})
        check_optimizers(
            self._model,
            [others["optimizer"]] if others.get("optimizer") is not None else [],
            "give the Trainer optimizers=(AdamW([*model.parameters(), *range_parameters(analog)]), None)",
        )
        part_noise(args.process_index, args.world_size)
        if args.eval_on_start:
            self.course.put_on_chip(others["model"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        """After each step of the optimizer, however many batches it took."""
        self.course.step()
        # The trainer clears the gradients of the model's Parameters, of which ranges are none: they would add up.
        clear_range_gradients(others["model"])
        if control.should_evaluate:
            self.course.put_on_chip(others["model"])

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """The chip that the evaluation after an epoch finds: always the same one, with the weights as they are now."""
        if control.should_evaluate:
            self.course.put_on_chip(others["model"])

    def on_evaluate(self, *_: Any, **others: Any) -> None:
        """The next step changes the weights; no chip holds them then."""
        self.course.take_off_chip(others["model"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """The trainer may have loaded its best weights, which are on no chip, and whose ranges are in their folder."""
        self.course.take_off_chip(others["model"])
        if args.load_best_model_at_end and state.best_model_checkpoint:
            kept = Path(state.best_model_checkpoint) / "trainer_state.json"
            if kept.is_file():
                self._set_ranges_of(json.loads(kept.read_text(encoding="utf-8")).get("stateful_callbacks", {}))

    def _set_ranges_of(self, kept: Mapping[str, Any]) -> None:
        """What a checkpoint tells of callbacks: one of each kind as it is, several in a list."""
        told = kept.get(type(self).__name__, {})
        for state in told if isinstance(told, list) else [told]:
            if self._model is not None and state.get("attributes", {}).get("ranges"):
                set_plain_ranges(self._model, state["attributes"]["ranges"])


_METHOD = "analogsim"


@register_quantization_config(_METHOD)
class AnalogConfig(QuantizationConfigMixin):
    """The hardware of a twin as transformers keeps it, under ``quantization_config`` in ``config.json``.

    Args:
        device: see `analogsim.convert`; patterns of names are kept, types as patterns are not.
        crossbar: see there.
        embeddings: see there.
        train_times: see there.
        ranges: of converters, as ``{layer: {"input_range": numbers}}``; `save_pretrained` writes those that the twin
            has then, so that nobody gives them by hand.

    Raises:
        TypeError: a pattern that is a type, an entry that a configuration does not have.
        ValueError: an unknown device or crossbar.
    """

    def __init__(
        self,
        device: DeviceLike | Devices = "pcm",
        *,
        crossbar: CrossbarLike | Crossbars = "ideal",
        embeddings: bool = False,
        train_times: Sequence[float | str] | None = None,
        ranges: Mapping[str, Mapping[str, Any]] | None = None,
        **others: Any,
    ) -> None:
        unknown = set(others) - {"quant_method"}
        if unknown:
            raise InvalidTypeError(
                f"AnalogConfig: there is no {min(unknown)!r}; it has device, crossbar, embeddings, train_times, ranges"
            )
        self.quant_method: Any = _METHOD
        self.device = plain_device(device)
        self.crossbar = plain_crossbar(crossbar)
        self.embeddings = bool(embeddings)
        self.train_times = None if train_times is None else list(train_times)
        self.ranges = {name: dict(found) for name, found in (ranges or {}).items()}

    @classmethod
    def of(cls, analog: nn.Module) -> AnalogConfig:
        """The hardware that a twin has, layer by layer, with its ranges; layers that stay digital are said to."""
        config = cls(**plain_hardware(analog))
        config.ranges = plain_ranges(analog)
        return config

    def convert(self, model: nn.Module) -> nn.Module:
        """The twin of a network on this hardware, with its ranges."""
        twin = convert(
            model,
            read_plain_device(self.device),
            crossbar=read_plain_crossbar(self.crossbar),
            train_times=None if self.train_times is None else tuple(self.train_times),  # type: ignore[arg-type]
            embeddings=self.embeddings,
        )
        set_plain_ranges(twin, self.ranges)
        return twin


@register_quantizer(_METHOD)
class AnalogQuantizer(HfQuantizer):
    """Puts the twin in the place of the network that `from_pretrained` has made; transformers finds it by its name."""

    requires_calibration = False
    quantization_config: AnalogConfig

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_: Any) -> PreTrainedModel:
        twin = self.quantization_config.convert(model)
        _put_in_place(model, twin)
        return model

    def _dequantize(self, model: PreTrainedModel, dtype: Any = None) -> PreTrainedModel:
        """``model.dequantize()``: the digital network again, which is saved as one."""
        _put_in_place(model, to_digital(model))
        return model

    def get_state_dict_and_metadata(self, model: PreTrainedModel) -> tuple[dict[str, Tensor] | None, dict[str, str]]:
        """Nothing but the network's own state; ranges go into the configuration, which is written next."""
        self.quantization_config.ranges = plain_ranges(model)
        model.config.quantization_config = self.quantization_config
        return None, {}

    def is_serializable(self) -> bool:
        """Weights are saved as they are."""
        return True

    @property
    def is_trainable(self) -> bool:
        """The weights of a twin are Parameters."""
        return True

    @property
    def is_qat_trainable(self) -> bool:
        """For the `Trainer`, which asks before it trains."""
        return True


def remember_hardware(analog: nn.Module, config: AnalogConfig | None = None) -> None:
    """Let `save_pretrained` and `push_to_hub` of a twin that `convert` made write its hardware, too.

    `from_pretrained` then gives a twin back; without this, the digital network.

    Args:
        analog: the twin of a `PreTrainedModel`.
        config: how it was made, where that is said in fewer words than layer by layer.

    Raises:
        TypeError: it is no twin of a `PreTrainedModel`.
        ValueError: there is no analog layer.
    """
    if not isinstance(analog, PreTrainedModel):
        raise InvalidTypeError(
            f"remember_hardware: give the twin of a PreTrainedModel, whose config is saved; got one of type "
            f"{type(analog).__name__}"
        )
    held = AnalogConfig.of(analog) if config is None else config
    kept: Any = AnalogQuantizer(held, pre_quantized=True)
    analog.hf_quantizer = kept
    analog.config.quantization_config = held


def _put_in_place(model: nn.Module, other: nn.Module) -> None:
    """Let a module be another one of its class: one dictionary of all that they hold."""
    object.__setattr__(model, "__dict__", vars(other))
