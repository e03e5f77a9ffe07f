"""Tables stored on crossbars: one word line per entry, one bit line per feature.

A lookup drives one word line at full scale and reads every bit line, so that the table ``(entries, features)`` is the
matrix ``(features, entries)`` and an index stands for the input with a single 1. What follows from it:

* Input converters have nothing to convert, and their range plays no part: a line is driven or not. Rows of bias hold
  nothing for a table and are not driven. Output converters read each lookup, from the block of rows that the entry lies
  in; their bound is in units of one full-scale weight here, so that 1 suffices where other layers need 10.
* Read noise is that of the cells that are read, new in each lookup.
* A bag is looked up entry by entry and pooled digitally, in all three modes. Driving the lines of a bag at once would
  save conversions for sums and means only, and would need input converters for the weights of samples, for entries that
  come twice and for bags of different size.
* The row of ``padding_idx`` is never driven: its answer is the digital value (zeros, unless somebody set it), without
  noise and without gradient; in a bag it is left out.
* ``max_norm`` shortens a vector digitally after it was read, with torch's factor, and in training the rows of the
  Parameter too, as torch does; in eval the Parameter stays what was programmed.
* Training draws errors for the whole table, in each forward: the cost of a table is that of its size, as with torch's
  own dense gradient. ``sparse=True`` is refused.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from analogsim.crossbar.signal_path import Array, convert_lookup
from analogsim.errors import InvalidValueError
from analogsim.layers.matrix import Drawn
from analogsim.layers.module import AnalogLayer
from analogsim.layers.registry import register_layer
from analogsim.layers.slot import Slot
from analogsim.layers.state import AnalogState


class _AnalogTable(AnalogLayer):
    stored = True
    bias = None

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`."""
        return {"": Slot(bias=None, transposed=True)}

    def attach(self, states: dict[str, AnalogState], module: nn.Module) -> None:
        """See `AnalogModule.attach`."""
        if cast(nn.Embedding, module).sparse:
            raise InvalidValueError(
                f"convert: the table {states[''].title!r} has sparse=True, but errors are drawn for all of it in "
                "training, and its gradient is dense; make it with sparse=False, or map it to None"
            )
        super().attach(states, module)

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The columns of ``weight`` that the indices ``(...)`` name, as ``(..., features)``."""
        return functional.embedding(input, weight.t(), scale_grad_by_freq=cast(nn.Embedding, self).scale_grad_by_freq)

    def draw(self) -> Drawn:
        """See `AnalogMatrix.draw`."""
        return _Lookup(self)

    def _shorten(self, input: Tensor) -> None:
        """In training, shorten the rows of the Parameter that are looked up."""
        table = cast(nn.Embedding, self)
        if table.max_norm is not None and self.training:
            with torch.no_grad():
                torch.embedding_renorm_(table.weight.detach(), input.contiguous(), table.max_norm, table.norm_type)


class _Lookup(Drawn):
    """One draw of a table."""

    def __call__(self, input: Tensor) -> Tensor:
        """The vectors ``(..., features)`` that are read at the indices ``(...)``."""
        read = super().__call__(input)
        table = cast(nn.Embedding, self._owner)
        if table.max_norm is None:
            return read
        norm = torch.linalg.vector_norm(read.detach(), table.norm_type, -1, keepdim=True)
        return read * torch.where(norm > table.max_norm, table.max_norm / (norm + 1e-7), 1.0)

    def _power(self, input: Tensor, variance: Tensor) -> Tensor:
        state = self._owner.analog
        return self._owner.product(input, state.layout.lift(variance, state.shape)[0], None)

    def _converted(self, input: Tensor, array: Array) -> Tensor:
        state = self._owner.analog
        bound = state.ranges[1]
        bound = bound.to(input.device) if isinstance(bound, Tensor) else bound
        if state.observe is not None:
            state.observe("input", array.scale.new_ones(1), 0, None)
        output = convert_lookup(
            self._owner,
            input,
            array,
            state.crossbar,
            self._noise,
            output_bound=bound,
            noise_scale=1.0 if self._scale is None else self._scale,
            observe=state.observe,
        )
        if self._linear is not None:
            plain = self._owner.product(input, *state.layout.lift(self._linear, state.shape))
            output = plain + (output - plain).detach()
        return self._finished(output, input)

    def _finished(self, output: Tensor, input: Tensor) -> Tensor:
        return self._staged(output, input)  # whatever lies in rows of bias, a table has none


@register_layer(nn.Embedding)
class AnalogEmbedding(_AnalogTable, nn.Embedding):
    """``nn.Embedding`` whose table ``(entries, features)`` is stored on crossbars; input: indices ``(...)``."""

    def forward(self, input: Tensor) -> Tensor:
        """The vectors ``(..., features)`` read from the crossbars: fresh noise in training, the chip in eval."""
        self._shorten(input)
        read = self.draw()(input)
        if self.padding_idx is None:
            return read
        pad = self.still()[0][:, self.padding_idx]
        return torch.where((input == self.padding_idx).unsqueeze(-1), pad, read)

    def looked_up(self, input: Tensor, **call: Any) -> Tensor:
        """The answer to a call of ``functional.embedding`` with this table; the options are those of the layer."""
        return AnalogEmbedding.forward(self, input)


@register_layer(nn.EmbeddingBag)
class AnalogEmbeddingBag(_AnalogTable, nn.EmbeddingBag):
    """``nn.EmbeddingBag`` whose table is stored on crossbars: each entry is looked up, bags are pooled digitally."""

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """The pooled vectors ``(bags, features)``; arguments as in torch."""
        ends = self.include_last_offset
        if input.is_nested:  # the bags themselves
            weights = None if per_sample_weights is None else per_sample_weights.values()
            input, offsets, per_sample_weights, ends = input.values(), cast(Any, input).offsets(), weights, True
        if offsets is not None and input.dtype != offsets.dtype and not input.is_floating_point():
            input = input.to(torch.promote_types(input.dtype, offsets.dtype))  # as torch's kernel does
        self._shorten(input)
        drawn = self.draw()
        positions, table, pad, by_frequency = input, None, self.padding_idx, self.scale_grad_by_freq
        # Frequencies are those of entries, which torch counts in lookups, and torch 2.11 miscounts in bags.
        # No table holds an offset of what is read.
        if drawn.plain is not None and not drawn.staged and self.max_norm is None and not by_frequency:
            table = drawn.plain[0].t()
        else:
            table, by_frequency = drawn(input).flatten(0, -2), False
            positions = torch.arange(len(table), dtype=input.dtype, device=input.device).view(input.shape)
            if pad is not None:
                positions = torch.where(input == pad, len(table), positions)
                pad, table = len(table), functional.pad(table, (0, 0, 0, 1))
        return functional.embedding_bag(
            positions,
            table,
            offsets,
            scale_grad_by_freq=by_frequency,
            mode=self.mode,
            per_sample_weights=per_sample_weights,
            include_last_offset=ends,
            padding_idx=pad,
        )

    def looked_up(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None, **call: Any
    ) -> Tensor:
        """The answer to a call of ``functional.embedding_bag`` with this table; the options are those of the layer."""
        return AnalogEmbeddingBag.forward(self, input, offsets, per_sample_weights)
