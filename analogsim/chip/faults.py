"""Cells that are known to be stuck, and weights laid around them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from analogsim.chip.layer_chip import checked_faults
from analogsim.chip.lifecycle import as_seed
from analogsim.device.model import STUCK_OFF, STUCK_ON, Written
from analogsim.device.parse import DeviceLike, as_device_model
from analogsim.draws.noisy_weight import in_compute_dtype
from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import matrices_of
from analogsim.mapping.layout import Blocks, Layout
from analogsim.noise.sources import KeyedNoise
from analogsim.utils.checks import check_flag

Faults = dict[str, Tensor]


def _laid(layer: AnalogMatrix) -> Written:
    state = layer.analog
    weight = in_compute_dtype(state.layout.lay(*layer.still()))
    return state.device.lay_out(weight, state.layout)


def draw_faults(analog: nn.Module, effect: DeviceLike = "stuck-at", seed: int = 0) -> Faults:
    """A map of stuck cells for every analog layer, as a test of a chip would find it.

    Args:
        analog: the twin; its device has cells, and need not have stuck ones.
        effect: what draws the faults, such as ``"stuck-at(p_off=0.01, cluster='row')"``.
        seed: which chip.

    Returns:
        For each layer by name ``(cells, out (+ reference columns), ...)``: 0 works, 1 is stuck at ``g_min``, 2 at
        ``g_max``; of an effect whose cells are stuck elsewhere, floating numbers: the conductance, and NaN for a cell
        that works. For `program`, `evaluate` and `remap`.

    Raises:
        ValueError: the effect makes no cell stick, or a layer has no cells.
    """
    model = as_device_model(effect)
    number = as_seed(seed)
    faults: Faults = {}
    for layer in matrices_of(analog):
        name = layer.analog.name
        if layer.analog.device.signed:
            raise InvalidValueError(f"draw_faults: layer {name!r} has no cells; its device acts on weights")
        cells = _laid(layer).cells
        noise = KeyedNoise(str(number), name, "faults")
        drawn = [(part, part.draw(cells, noise.fold(str(place)))) for place, part in enumerate(model.effects)]
        held = [(part, state) for part, state in drawn if part.held(state) is not None]
        if not held:
            raise InvalidValueError(f"draw_faults: {model.name!r} makes no cell stick; give stuck-at or the like")
        at = torch.full_like(cells.target, math.nan)
        for part, state in held:
            at = part.hold(at, cells, state)
        off, on = at == cells.g_min, at == cells.g_max
        codes = off.to(torch.int8) * STUCK_OFF + on.to(torch.int8) * STUCK_ON
        # What stands elsewhere needs its conductance, a whole map of numbers.
        faults[name] = codes if bool((off | on | at.isnan()).all()) else _told_apart(at)
    return faults


def _told_apart(at: Tensor) -> Tensor:
    """Conductances that are not taken for codes: where no cell works, nothing else says that 0, 1 and 2 are none."""
    if at.isnan().any():
        return at
    limits = torch.finfo(at.dtype)
    return (at * (1 + limits.eps)).clamp(min=limits.tiny)


def _squared_error(written: Written, faults: Tensor) -> Tensor:
    """Squared error of every weight when it lies on faulty cells, ``(out, rows)``."""
    mapped, target = written.mapped, written.cells.target
    exact = mapped.to_weight(target)
    wrong = mapped.to_weight(mapped.around(target, faults))
    return (wrong - exact).square().flatten(1)


def _assigned(cost: Tensor) -> Tensor:
    """Which place each thing gets, so that the sum of ``cost[thing, place]`` is least."""
    from scipy.optimize import linear_sum_assignment  # takes a second to import

    _, places = linear_sum_assignment(cost.double().cpu().numpy())
    return torch.as_tensor(places, device=cost.device)


def _exchanged(
    faults: Tensor, axis: int, blocks: Blocks, errors: Callable[[Tensor], Tensor], turned: Tensor | None = None
) -> Tensor:
    """The map with lines of each block exchanged along an axis, so that the sum of their errors is least.

    Args:
        faults: the map.
        axis: along which lines are exchanged.
        blocks: within which.
        errors: of each line, if the map were this one.
        turned: the map as it is met by weights of the other sign; None where signs stay. Each line takes the one or the
            other.
    """
    maps = (faults,) if turned is None else (faults, turned)
    result = faults.clone()
    for start, end in blocks:
        count = end - start
        costs = faults.new_zeros(len(maps), count, count, dtype=torch.float64)
        for place in range(count):
            for sign, known in enumerate(maps):
                trial = known.clone()
                trial.narrow(axis, start, count).copy_(known.narrow(axis, start + place, 1))
                costs[sign, :, place] = errors(trial)[start:end]
        least, signs = costs.min(0)
        places = _assigned(least)
        lines = [known.index_select(axis, start + places) for known in maps]
        own = signs.gather(1, places.unsqueeze(1)).view(*(1,) * axis, count, *(1,) * (faults.ndim - axis - 1))
        chosen = lines[0] if turned is None else torch.where(own == 0, lines[0], lines[1])
        result.narrow(axis, start, count).copy_(chosen)
    return result


def _columns(written: Written, faults: Tensor, layout: Layout, signs: bool) -> Tensor:
    """The map with columns of each block of outputs exchanged."""
    turned = faults.roll(len(faults) // 2, 0) if signs else None
    return _exchanged(faults, 1, layout.cols, lambda trial: _squared_error(written, trial).sum(1), turned)


def _signed(written: Written, faults: Tensor) -> Tensor:
    """The map with the two parts of a pair exchanged in each column where that makes the error less."""
    turned = faults.roll(len(faults) // 2, 0)
    better = _squared_error(written, turned).sum(1) < _squared_error(written, faults).sum(1)
    return torch.where(better.view(1, -1, *(1,) * (faults.ndim - 2)), turned, faults)


def _rows(written: Written, faults: Tensor, layout: Layout) -> Tensor:
    """The map with rows of each block of inputs exchanged, for all outputs of the layer together."""
    shape = faults.shape
    flat = faults.flatten(2) if faults.ndim > 2 else faults.unsqueeze(2)

    def errors(trial: Tensor) -> Tensor:
        return _squared_error(written, trial.view(shape)).sum(0)

    return _exchanged(flat, 2, layout.rows, errors).view(shape)


def remap(
    analog: nn.Module,
    faults: Mapping[str, Tensor],
    *,
    rows: bool = True,
    columns: bool = True,
    signs: bool = False,
) -> Faults:
    """Lay weights around known faults: which input drives which word line, which output is read from which bit line.

    Within each block of a layer, lines are exchanged such that the squared error of the weights is least (an assignment
    problem, columns first, then rows, each exact for what the other is). The digital part undoes the exchange, so what
    changes for the network is which faults its weights meet: the result is the map of faults in the order of the
    weights. Where wires have resistance, lines are exchanged, but the places of cells on their wires are not.

    Args:
        analog: the twin with the weights that are to be written.
        faults: for layers by name, the map of stuck cells as they lie on the chip, see `program`.
        rows: exchange word lines. Layers with groups keep theirs.
        columns: exchange bit lines.
        signs: write the weights of an output with the other sign where that makes the error less, and negate it
            digitally: what was to lie on G+ of each of its pairs lies on G- then. Of differential pairs only; others
            keep their signs.

    Returns:
        The maps as the weights meet them, for ``program(analog, faults=...)``.

    Raises:
        ValueError: a map does not belong to the network.
    """
    for flag, value in (("rows", rows), ("columns", columns), ("signs", signs)):
        check_flag(value, f"remap: {flag}")
    layers = {layer.analog.name: layer for layer in matrices_of(analog)}
    if not isinstance(faults, Mapping):
        raise InvalidTypeError(f"remap: faults must be a mapping from layers to maps, see draw_faults; got {faults!r}")
    result: Faults = {}
    for name, given in faults.items():
        if name not in layers:
            raise InvalidValueError(
                f"remap: faults of {name!r}, which is no analog layer; there are {', '.join(layers)}"
            )
        state = layers[name].analog
        written = _laid(layers[name])
        known = checked_faults(given, state, written.cells.target[0, : state.layout.cols[-1][1]])
        pairs = signs and state.device.laid.planes == 2
        if columns:
            known = _columns(written, known, state.layout, pairs)
        elif pairs:
            known = _signed(written, known)
        if rows and state.layout.groups == 1:
            known = _rows(written, known, state.layout)
        result[name] = known
    return result
