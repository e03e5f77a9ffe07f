"""The way back: analog twin -> plain network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

from torch import Tensor, nn

from analogsim.conversion.first_forward import stop_watching
from analogsim.crossbar.stages import fold
from analogsim.errors import InvalidValueError
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import AnalogModule, chips_of, matrices_of, unwatch_rules
from analogsim.layers.state import MatrixChip
from analogsim.utils.checks import check_module
from analogsim.utils.modules import M, copy_tree, names_of, own_copy


def to_digital(analog: M, weights: Literal["clean", "programmed"] = "clean") -> M:
    """A plain network again.

    Args:
        analog: the twin.
        weights: ``"clean"``: over the very same Parameters; adapters, which make up for what a chip does to them, are
            left out. ``"programmed"``: with its own Parameters, which hold what the chip's weights are worth at its
            present time, drift compensation, corrected outputs and adapters included; white read noise, which differs
            from use to use, is not in it, nor are converters.

    Raises:
        NotProgrammedError, StaleChipError: programmed weights were asked for, and there is no valid chip.
    """
    check_module(analog, "to_digital: the twin that analogsim.convert(model, ...) returned")
    if weights not in ("clean", "programmed"):
        raise InvalidValueError(f'to_digital: weights must be "clean" or "programmed", got {weights!r}')
    plain = _make_plain(analog)
    check_module(analog, "to_digital: the twin that analogsim.convert(model, ...) returned")
    if weights == "clean":
        return plain
    values = {matrix: _worth(matrix, chip) for matrix, chip in chips_of(analog, "to_digital")}
    computed = [matrix.analog.name for matrix in values if matrix.computed]
    if computed:
        raise InvalidValueError(
            f"to_digital: the weight of layer {computed[0]!r} is computed from other Parameters (pruning, weight "
            "norm), which would undo the programmed one; make it permanent before convert"
        )
    own = own_copy(plain)
    for module, (name, *_) in names_of(analog).items():
        if isinstance(module, AnalogModule):
            _put_values(module, own.get_submodule(name), values)
    return own


def _worth(matrix: AnalogMatrix, chip: MatrixChip) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of what a chip and its digital stages come to.

    Raises:
        ValueError: no weight and bias do.
    """
    state = matrix.analog
    clean, bias = matrix.still()
    found = state.layout.lift(chip.weight_for(clean, bias)[0], state.shape)
    adapted = () if state.adapter is None else (state.adapter.at(chip.time, clean.device),)
    stages = (*chip.stages, *state.stages, *adapted)
    if not stages:
        return found
    if not state.layout.bias_rows:
        found = found[0], bias
    for stage in stages:
        folded = fold(stage, *found, on_array=bool(state.layout.bias_rows))
        if folded is None:
            raise InvalidValueError(
                f"to_digital: layer {state.title!r} has a digital stage that no weight and bias stand for"
            )
        found = folded
    if found[1] is not None and bias is None:
        raise InvalidValueError(
            f"to_digital: layer {state.title!r} has no bias that could hold the offsets of its corrected outputs "
            'or its adapter; calibrate_outputs(..., match="scale"), or remove_adapters, or program the chip again'
        )
    return found


def _make_plain(analog: M) -> M:
    """The digital network over the very same Parameters."""
    replaced: dict[AnalogModule, nn.Module] = {
        module: module.stands_for.__new__(module.stands_for)
        for module in analog.modules()
        if isinstance(module, AnalogModule)
    }
    matrices = matrices_of(analog)
    for matrix in matrices:
        matrix.check_intact()
    states = [matrix.analog for matrix in matrices]
    plain = copy_tree(analog, cast("dict[nn.Module, nn.Module]", replaced), shared=states)
    for module in plain.modules():
        stop_watching(module)
    for old, new in replaced.items():
        for name in old.analog_only:
            new.__dict__.pop(name, None)
        unwatch_rules(new)
    return plain


def _put_values(
    module: AnalogModule, target: nn.Module, values: Mapping[AnalogMatrix, tuple[Tensor, Tensor | None]]
) -> None:
    """Write what the matrices of an analog module are worth into Parameters of the digital one's own."""
    slots = module.slots(module)
    # Ties are cut on purpose: two arrays that hold one weight hold it with two different errors.
    for entry in {entry for slot in slots.values() for entry in (slot.weight, slot.bias) if entry is not None}:
        tied = getattr(target, entry, None)
        if tied is not None:
            setattr(target, entry, nn.Parameter(tied.detach().clone(), requires_grad=tied.requires_grad))
    for label, matrix in module.matrices.items():
        slots[label].put(target, *values[matrix])
