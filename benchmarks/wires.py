"""Ohmic wires against nodal analysis: the error of both modes, and the time of each for one crossbar.

The reference writes Kirchhoff's law for every node of the crossbar into a sparse matrix and solves it for each word
line driven alone. It knows nothing of ours.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from analogsim.crossbar.wires import Wires, effective_conductance
from analogsim.utils.text import table

Array = NDArray[np.float64]

OHMS = (0.1, 1.0, 10.0)
# Only the product of conductance and resistance counts: 25 µS at 100 ohm is 250 µS at 10 ohm.
OHMS_AT_25 = (0.1, 1.0, 10.0, 100.0)


def uniform(n: int, generator: torch.Generator) -> Tensor:
    """Every conductance of the range alike."""
    return torch.rand(n, n, generator=generator, dtype=torch.float64)


def pairs(n: int, generator: torch.Generator) -> Tensor:
    """Gaussian weights clipped at 2.5 sigma, on pairs in neighbouring columns: half the cells are empty."""
    weight = torch.randn(n, n // 2, generator=generator, dtype=torch.float64).clamp(-2.5, 2.5) / 2.5
    return torch.stack((weight, -weight), -1).clamp(min=0).flatten(-2)


def uneven(n: int, generator: torch.Generator) -> Tensor:
    """Such pairs in rows and columns of very different strength: each is scaled by a number, uniform in 0 to 1."""
    row, column = (torch.rand(shape, generator=generator, dtype=torch.float64) for shape in ((n, 1), (1, n)))
    return pairs(n, generator) * row * column


KINDS: dict[str, Callable[[int, torch.Generator], Tensor]] = {"uniform": uniform, "pairs": pairs, "uneven": uneven}


def nodal(g: Array, wires: Wires) -> Array:
    """Effective conductances ``(rows, cols)`` in µS by nodal analysis; ``row`` and ``col`` must not be 0."""
    rows, cols = g.shape
    word = np.arange(g.size).reshape(rows, cols)
    bit = word + g.size
    laplacian = sparse.lil_matrix((2 * g.size, 2 * g.size)).tocsr()
    for a, b, siemens in (
        (word, bit, 1e-6 * g),
        (word[:, :-1], word[:, 1:], np.full((rows, cols - 1), 1 / wires.row)),
        (bit[:-1], bit[1:], np.full((rows - 1, cols), 1 / wires.col)),
    ):
        start, end, value = a.ravel(), b.ravel(), siemens.ravel()
        index = (np.r_[start, end, start, end], np.r_[start, end, end, start])
        laplacian += sparse.csr_matrix((np.r_[value, value, -value, -value], index), laplacian.shape)
    ends = np.zeros(2 * g.size)
    ends[word[:, 0]] = 1 / (wires.source + wires.row)
    ends[bit[-1]] = 1 / (wires.sink + wires.col)
    driven = np.zeros((2 * g.size, rows))
    driven[word[:, 0], np.arange(rows)] = 1 / (wires.source + wires.row)
    solver = splu((laplacian + sparse.diags(ends)).tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    result: Array = 1e6 * solver.solve(driven)[bit[-1]].T / (wires.sink + wires.col)
    return result


def errors(ours: Tensor, reference: Tensor) -> tuple[float, float]:
    """Largest deviation over the largest effective conductance, and Frobenius norm over Frobenius norm."""
    error = ours.double() - reference
    return float(error.abs().max() / reference.abs().max()), float(error.norm() / reference.norm())


def seconds(call: Callable[[], object], least: float = 0.5) -> float:
    """Least processor time of one call, tried for about half a second and at least twice: waiting does not count."""
    found: list[float] = []
    while len(found) < 2 or sum(found) < least:
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def exactness(sizes: Sequence[int], seed: int = 0) -> str:
    """``"exact"`` in both precisions against nodal analysis: uniform conductances up to 250 µS."""
    rows = []
    for n in sizes:
        for ohm in OHMS:
            generator = torch.Generator().manual_seed(seed)
            wires = Wires(row=ohm, col=2 * ohm, source=5 * ohm, sink=ohm)
            g = 250 * uniform(n, generator)
            reference = torch.from_numpy(nodal(g.numpy(), wires))
            double, single = (
                errors(effective_conductance(g.to(kind), wires), reference) for kind in (g.dtype, torch.float)
            )
            rows.append((str(n), f"{ohm:g}", *(f"{error:.1e}" for error in (*double, *single))))
    return table(("side", "row, ohm", "float64, max", "norm", "float32, max", "norm"), rows, right=0)


def approximation(sizes: Sequence[int], seed: int = 0) -> str:
    """``"fast"`` and no wires at all against ``"exact"``, up to 25 µS. The load is mean g times ohm times cells."""
    rows = []
    for kind, draw in KINDS.items():
        for n in sizes:
            for ohm in OHMS_AT_25:
                g = 25 * draw(n, torch.Generator().manual_seed(seed))
                reference = effective_conductance(g, Wires(row=ohm, col=ohm))
                ours = errors(effective_conductance(g, Wires(row=ohm, col=ohm, mode="fast")), reference)
                ignored = errors(g, reference)
                load = 1e-6 * float(g.mean()) * ohm * n * n
                cells = (kind, str(n), f"{ohm:g}", f"{load:.4f}")
                rows.append((*cells, *(f"{100 * error:.3f} %" for error in (*ours, *ignored))))
    head = ("conductances", "side", "ohm", "load", "fast, max", "norm", "ignored, max", "norm")
    return table(head, rows)


def times(sizes: Sequence[int], seed: int = 0) -> str:
    """Processor time for one crossbar: both modes, the backward pass, and the sparse solve of the reference."""
    rows = []
    for n in sizes:
        g = 25 * uniform(n, torch.Generator().manual_seed(seed))
        exact, fast = Wires(row=1, col=1), Wires(row=1, col=1, mode="fast")
        single = g.float()
        leaf = single.clone().requires_grad_()
        result = effective_conductance(leaf, exact)
        calls: tuple[Callable[[], object], ...] = (
            partial(effective_conductance, g, exact),
            partial(effective_conductance, single, exact),
            partial(torch.autograd.grad, result, leaf, torch.ones_like(result), retain_graph=True),
            partial(effective_conductance, single, fast),
            partial(nodal, g.numpy(), exact),
        )
        rows.append((str(n), *(f"{1e3 * seconds(call):.1f} ms" for call in calls)))
    return table(
        ("side", "exact, float64", "float32", "its backward", "fast, float32", "nodal analysis"), rows, right=0
    )


def large(n: int, seed: int = 0) -> str:
    """Time and memory of one large crossbar, in both precisions."""
    lines = []
    for kind in (torch.float32, torch.float64):
        g = 25 * uniform(n, torch.Generator().manual_seed(seed)).to(kind)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        result = effective_conductance(g, Wires(row=1, col=1))
        spent = time.perf_counter() - start
        unit = 1 if sys.platform == "darwin" else 1024
        grown = unit * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
        corner = float(result[0, -1] / g[0, -1])
        lines.append(
            f"{n} x {n}, {kind}: {spent:.1f} s, peak memory + {grown:.0f} MiB, far corner at {100 * corner:.2f} %"
        )
    return "\n".join(lines)


def main() -> None:
    """``python -m benchmarks.wires``: print errors and times."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wires", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128, 256], help="(default: 32 64 128 256)")
    parser.add_argument("--large", type=int, metavar="SIDE", help="only: time and memory of one crossbar of this side")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the conductances")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.large:
        print(large(options.large, options.seed))
        return
    print(f"exact against nodal analysis:\n{exactness(options.sizes, options.seed)}\n")
    print(f"fast, and wires ignored, against exact:\n{approximation(options.sizes, options.seed)}\n")
    print(
        f"one crossbar, processor time with {torch.get_num_threads()} thread(s):\n{times(options.sizes, options.seed)}"
    )


if __name__ == "__main__":
    main()
