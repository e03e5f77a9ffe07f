"""Recurrent layers on crossbars: one draw of each matrix for all time steps of a forward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from analogsim.errors import InvalidValueError, OperationError
from analogsim.layers.matrix import Drawn
from analogsim.layers.module import AnalogModule, Clean
from analogsim.layers.registry import register_layer
from analogsim.layers.slot import Slot
from analogsim.utils.torch_private import (
    compact,
    compiler_looks_on,
    compiles_recurrent_layers,
    disable_dynamo,
    flat_weight_names,
    update_flat_weights,
)

Hidden = tuple[Tensor, ...]
"""What goes from one time step to the next: ``(h,)``, of an LSTM ``(h, c)``."""

Draws = Mapping[str, Drawn | Clean]


def _tanh(driven: Tensor, fed: Tensor, state: Hidden) -> Hidden:
    return ((driven + fed).tanh(),)


def _relu(driven: Tensor, fed: Tensor, state: Hidden) -> Hidden:
    return ((driven + fed).relu(),)


def _lstm(driven: Tensor, fed: Tensor, state: Hidden) -> Hidden:
    i, f, g, o = (driven + fed).chunk(4, -1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru(driven: Tensor, fed: Tensor, state: Hidden) -> Hidden:
    (r_x, z_x, n_x), (r_h, z_h, n_h) = driven.chunk(3, -1), fed.chunk(3, -1)
    n = (n_x + (r_x + r_h).sigmoid() * n_h).tanh()
    return (n + (z_x + z_h).sigmoid() * (state[0] - n),)


@dataclass(frozen=True)
class _Kind:
    """One kind of recurrent network.

    Args:
        gates: the next state, of ``W_ih x + b_ih``, ``W_hh h + b_hh`` and the state; see the equations in the
            documentation of ``nn.RNN``, ``nn.LSTM`` and ``nn.GRU``.
        layers: torch's kernel for all time steps of all layers.
        cell: torch's kernel for one time step.
    """

    gates: Callable[[Tensor, Tensor, Hidden], Hidden]
    layers: Callable[..., Any]
    cell: Callable[..., Any]


_KINDS = {
    "RNN_TANH": _Kind(_tanh, torch.rnn_tanh, torch.rnn_tanh_cell),
    "RNN_RELU": _Kind(_relu, torch.rnn_relu, torch.rnn_relu_cell),
    "LSTM": _Kind(_lstm, torch.lstm, torch.lstm_cell),
    "GRU": _Kind(_gru, torch.gru, torch.gru_cell),
}


def _plain(slots: Mapping[str, Slot], draws: Draws) -> dict[str, Tensor] | None:
    """Drawn weights and biases under the names of their Parameters; None if torch's kernels cannot take them.

    They cannot behind converters or with read noise, nor where bias rows hold a bias that the module does not have.
    """
    found: dict[str, Tensor] = {}
    for label, slot in slots.items():
        plain = draws[label].plain
        if plain is None or (plain[1] is None) != (slot.bias is None):
            return None
        found[slot.weight] = plain[0]
        if slot.bias is not None and plain[1] is not None:
            found[slot.bias] = plain[1]
    return found


@dataclass(frozen=True)
class _Step:
    """One time step in one direction of one layer.

    Args:
        kind: of the network.
        hidden: takes products with ``W_hh``.
        project: with ``W_hr``; None without.
    """

    kind: _Kind
    hidden: Drawn | Clean
    project: Drawn | Clean | None = None

    def after(self, driven: Tensor, state: Hidden) -> Hidden:
        """The next state of ``W_ih x + b_ih`` and the state; as a method, since torch 2.11 compiles no ``__call__``."""
        h, *rest = self.kind.gates(driven, self.hidden(state[0]), state)
        return (h if self.project is None else self.project(h), *rest)


def _sweep(step: _Step, driven: Tensor, sizes: list[int], start: Hidden, backwards: bool) -> tuple[Tensor, Hidden]:
    """All time steps in one direction of one layer.

    Args:
        step: one of them.
        driven: ``W_ih x + b_ih`` of all, one after the other ``(sum of sizes, gates)``.
        sizes: how many sequences there are at each time; never more than the time before.
        start: the states to begin with, of all sequences.
        backwards: from the last time step to the first.

    Returns:
        All h ``(sum of sizes, hidden)``, and the states at the end of each sequence.
    """
    pieces = driven.split_with_sizes(sizes)
    order = range(len(sizes))[:: -1 if backwards else 1]
    batch = sizes[order[0]]
    state = tuple(part[:batch] for part in start)
    outputs = list(pieces)
    ended: list[Hidden] = []
    for time in order:
        now = sizes[time]
        if now < batch:  # forwards, where sequences ended
            ended.append(tuple(part[now:] for part in state))
            state = tuple(part[:now] for part in state)
        elif now > batch:  # backwards, where they begin
            fresh = (part[batch:now] for part in start)
            state = tuple(torch.cat(both) for both in zip(state, fresh, strict=True))
        batch = now
        state = step.after(pieces[time], state)
        outputs[time] = state[0]
    if ended:
        state = tuple(torch.cat(parts) for parts in zip(state, *reversed(ended), strict=True))
    return torch.cat(outputs), state


def _compacted(module: nn.RNNBase, weights: list[Tensor]) -> list[Tensor]:
    """The same weights; on a GPU in one piece of memory, which cuDNN wants and otherwise makes, with a warning."""
    if not weights[0].is_cuda or torch.compiler.is_compiling():
        return weights
    views = [weight.view_as(weight) for weight in weights]  # so that the weights stay where they are
    compact(module, views)
    return views


@disable_dynamo
def _uncompiled(module: _AnalogRNN, input: Any, hx: Any) -> Any:
    return module._answer(input, hx)


class _AnalogRNN(AnalogModule, nn.RNNBase):
    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`; the labels are the names of the Parameters, such as ``weight_ih_l0_reverse``."""
        names = flat_weight_names(cast(nn.RNNBase, module))
        biases = {name: name.replace("weight", "bias") for name in names}
        return {
            name: Slot(name, biases[name] if biases[name] in names else None)
            for name in names
            if name.startswith("weight")
        }

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As the digital layer's. Each matrix is drawn once; read noise and converters act anew at each time step."""
        # The compiler also looks where torch gave up on the code around and runs it as it is: what that code calls, the
        # parts of our forward among it, would be compiled piece by piece.
        compiled = torch.compiler.is_compiling() or compiler_looks_on()
        if compiled and not compiles_recurrent_layers():
            return _uncompiled(self, input, hx)
        return self._answer(input, hx)

    def _answer(self, input: Any, hx: Any) -> Any:
        update_flat_weights(self)
        if isinstance(input, PackedSequence):
            data, sizes, order, back = input
            output, end = self._advanced(data, sizes, self._begun(data, sizes, hx, order))
            if back is not None:
                end = tuple(part.index_select(1, back) for part in end)
            return PackedSequence(output, sizes, order, back), self._handed(end)
        if input.ndim != 2:
            output, end = self._advanced(input, None, self._begun(input, None, hx))
            return output, self._handed(end)
        batch_axis = 0 if self.batch_first else 1
        data = input.unsqueeze(batch_axis)
        output, end = self._advanced(data, None, self._begun(data, None, hx, unbatched=True))
        return output.squeeze(batch_axis), self._handed(tuple(part.squeeze(1) for part in end))

    def _begun(
        self, data: Tensor, sizes: Tensor | None, hx: Any, order: Tensor | None = None, *, unbatched: bool = False
    ) -> Hidden:
        """The states to begin with, in the order of the data; torch's kind of error where they do not fit."""
        self.check_input(data, sizes)
        if hx is None:
            start = self._start(data, sizes)
        else:
            start = tuple(hx) if self.mode == "LSTM" else (hx,)
            start = tuple(part.unsqueeze(1) for part in start) if unbatched else start
        self.check_forward_args(data, self._handed(start), sizes)
        return start if order is None else tuple(part.index_select(1, order) for part in start)

    def _advanced(self, data: Tensor, sizes: Tensor | None, start: Hidden) -> tuple[Tensor, Hidden]:
        """The output, and the states at the end."""
        slots = self.slots(self)
        draws = {label: self.draw_of(label) for label in slots}
        weights = _plain(slots, draws)
        if weights is not None:
            output, *end = self._fused(data, sizes, start, [weights[name] for name in flat_weight_names(self)])
        else:
            output, *end = self._stepped(data, sizes, start, draws)
        return output, tuple(end)

    def _handed(self, state: Hidden) -> Any:
        """A state in the form in which the digital layer takes and gives it."""
        return state if self.mode == "LSTM" else state[0]

    def _start(self, data: Tensor, sizes: Tensor | None) -> Hidden:
        """States of zeros."""
        h = data.new_zeros(self.get_expected_hidden_size(data, sizes))
        if self.mode != "LSTM":
            return (h,)
        return h, data.new_zeros((*h.shape[:2], self.hidden_size))

    def _fused(self, data: Tensor, sizes: Tensor | None, start: Hidden, weights: list[Tensor]) -> Hidden:
        """Output and states by torch's kernel."""
        # cuDNN has a backward in training mode only, and digital parts are trained with a chip in eval.
        dropout, learns = self.dropout if self.training else 0.0, self.training or torch.is_grad_enabled()
        options = (self.bias, self.num_layers, dropout, learns, self.bidirectional)
        kernel, weights, hx = _KINDS[self.mode].layers, _compacted(self, weights), self._handed(start)
        if sizes is None:
            return cast(Hidden, kernel(data, hx, weights, *options, self.batch_first))
        return cast(Hidden, kernel(data, sizes, hx, weights, *options))

    def _stepped(self, data: Tensor, sizes: Tensor | None, start: Hidden, draws: Draws) -> Hidden:
        """Output and states step by step; the products with the inputs of all time steps are one."""
        if sizes is None:
            data = data.transpose(0, 1) if self.batch_first else data
            steps, batch = data.shape[:2]
            counts, flow = [batch] * steps, data.flatten(0, 1)
        else:
            counts, flow = sizes.tolist(), data
        if not counts:
            raise OperationError("Expected sequence length to be larger than 0 in RNN")
        ends: list[Hidden] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                flow = functional.dropout(flow, self.dropout, self.training)
            outputs = []
            for end in ("", "_reverse") if self.bidirectional else ("",):
                drawn = {part: draws.get(f"weight_{part}_l{layer}{end}") for part in ("ih", "hh", "hr")}
                step = _Step(_KINDS[self.mode], cast(Drawn, drawn["hh"]), drawn["hr"])
                own = tuple(part[len(ends)] for part in start)
                output, state = _sweep(step, cast(Drawn, drawn["ih"])(flow), counts, own, backwards=end != "")
                outputs.append(output)
                ends.append(state)
            flow = torch.cat(outputs, -1)
        if sizes is None:
            flow = flow.view(steps, batch, flow.shape[-1])
            flow = flow.transpose(0, 1) if self.batch_first else flow
        return flow, *(torch.stack(parts) for parts in zip(*ends, strict=True))


@register_layer(nn.RNN)
class AnalogRNN(_AnalogRNN, nn.RNN):
    """``nn.RNN`` with the matrices of each layer and direction on crossbars: ``weight_ih_l0``, ``weight_hh_l0``, ...

    Input ``(time, batch, in)``, ``(batch, time, in)`` with ``batch_first``, ``(time, in)``, or a ``PackedSequence``.
    """


@register_layer(nn.LSTM)
class AnalogLSTM(_AnalogRNN, nn.LSTM):
    """``nn.LSTM`` with the matrices of each layer and direction on crossbars, projections (``weight_hr_l0``) too.

    Input as of `AnalogRNN`.
    """


@register_layer(nn.GRU)
class AnalogGRU(_AnalogRNN, nn.GRU):
    """``nn.GRU`` with the matrices of each layer and direction on crossbars: ``weight_ih_l0``, ``weight_hh_l0``, ...

    Input as of `AnalogRNN`.
    """


class _AnalogCell(AnalogModule, nn.RNNCellBase):
    mode: str

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`; the labels are ``weight_ih`` and ``weight_hh``."""
        bias = getattr(module, "bias_ih", None) is not None
        return {f"weight_{part}": Slot(f"weight_{part}", f"bias_{part}" if bias else None) for part in ("ih", "hh")}

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """As the digital cell's. A call is one time step: in training each draws the device anew."""
        if input.ndim not in (1, 2):
            raise InvalidValueError(
                f"{type(self).__name__}: input must be (in,) or (batch, in), got {tuple(input.shape)}"
            )
        state = self._begun(input, hx)
        slots = self.slots(self)
        draws = {label: self.draw_of(label) for label in slots}
        weights = _plain(slots, draws)
        if weights is None:
            after = _Step(_KINDS[self.mode], draws["weight_hh"]).after(draws["weight_ih"](input), state)
            return self._handed(after)
        if input.ndim == 2:
            return self._fused(input, state, weights)
        # torch's kernels take batches.
        after = self._fused(input.unsqueeze(0), tuple(part.unsqueeze(0) for part in state), weights)
        return tuple(part.squeeze(0) for part in after) if self.mode == "LSTM" else after.squeeze(0)

    def _begun(self, input: Tensor, hx: Any) -> Hidden:
        """The state to begin with."""
        shape = (*input.shape[:-1], self.hidden_size)
        pair = self.mode == "LSTM"
        if hx is None:
            return (input.new_zeros(shape),) * (1 + pair)
        state = tuple(hx) if pair else (hx,)
        if any(part.shape != shape for part in state):
            found = ", ".join(str(tuple(part.shape)) for part in state)
            raise OperationError(f"{type(self).__name__}: states must be {shape} for this input, got {found}")
        return state

    def _handed(self, state: Hidden) -> Any:
        """A state in the form in which the digital cell takes and gives it."""
        return state if self.mode == "LSTM" else state[0]

    def _fused(self, input: Tensor, state: Hidden, weights: Mapping[str, Tensor]) -> Any:
        """The next state by torch's kernel."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return _KINDS[self.mode].cell(input, self._handed(state), *(weights.get(name) for name in names))


@register_layer(nn.RNNCell)
class AnalogRNNCell(_AnalogCell, nn.RNNCell):
    """``nn.RNNCell`` with both matrices on crossbars; input ``(batch, in)``, state ``(batch, hidden)``."""

    @property
    def mode(self) -> str:  # type: ignore[override]
        """Which recurrent network it is a step of."""
        return f"RNN_{self.nonlinearity.upper()}"


@register_layer(nn.LSTMCell)
class AnalogLSTMCell(_AnalogCell, nn.LSTMCell):
    """``nn.LSTMCell`` with both matrices on crossbars; input ``(batch, in)``, states ``(batch, hidden)``."""

    mode = "LSTM"


@register_layer(nn.GRUCell)
class AnalogGRUCell(_AnalogCell, nn.GRUCell):
    """``nn.GRUCell`` with both matrices on crossbars; input ``(batch, in)``, state ``(batch, hidden)``."""

    mode = "GRU"
