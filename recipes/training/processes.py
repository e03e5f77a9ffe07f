"""Several processes that train one network together, as torchrun starts them; or one process, for which all is as ever.

    torchrun --nproc-per-node 2 -m analogsim train

A `Group` is what a recipe knows of it: each process asks it for its share of the work. The group of one process does
nothing: it opens nothing, copies nothing and costs nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import analogsim
from analogsim.errors import InvalidValueError, OperationError
from analogsim.evaluation.report import Report

T = TypeVar("T")

# What torchrun tells each process.
_TORCHRUN = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
# How long a process waits for the others. Process 0 alone fetches data and uploads artifacts, which may take long; the
# end of a process is noticed at once all the same, because its connections close.
_PATIENCE = timedelta(hours=2)


class ElsewhereError(OperationError):
    """Another process failed, and tells it.

    Cause: what the other process says, whose words are in the message.
    Cure: look at the error of that process first.
    """


@dataclass(frozen=True)
class Group:
    """One process on its own. What several would do together, it simply does.

    What speaks to the other processes has to be called by all of them, in the same order: `gather`, `each`, `first`,
    `by_turns`, `place`, `wrap` and the module it gives, `average_gradients`, `mean`, `same`, `evaluate`.

    Args:
        rank: number of this process; process 0 writes, logs and speaks for all.
        world: how many there are.
        local_rank: number of this process on its machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    @property
    def command(self) -> str:
        """How the command line was started, for texts that tell how to go on."""
        return "analogsim"

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in order."""
        return [value]

    def each(self, work: Callable[[], T]) -> T:
        """Do something in every process. If it fails in one, it fails in all: process 0 raises the error.

        ``work`` must not speak to the other processes.
        """
        return work()

    def first(self, work: Callable[[], T]) -> T:
        """Do something in process 0 alone and tell the others what came of it, an error included."""
        return work()

    def by_turns(self, work: Callable[[], T]) -> T:
        """Like `each`, but first in process 0, then in one process of each machine, then in the others.

        What the first one puts on a disk, the others find there.
        """
        return work()

    def place(self, choose: Callable[[], torch.device]) -> torch.device:
        """The torch device of this process, of the kind that ``choose`` gives."""
        return choose()

    def synchronized(self, model: nn.Module) -> nn.Module:
        """The model with batch norm over the batches of all processes, where torch has that (on GPUs)."""
        return model

    def wrap(self, net: nn.Module) -> nn.Module:
        """A module that computes as ``net`` does, and whose gradients are the mean over all processes."""
        return net

    def average_gradients(self, tensors: Sequence[Tensor]) -> None:
        """Let scalars that belong to no module have the mean gradient over all processes, as `wrap` does for others."""

    def seed(self, seed: int) -> int:
        """A seed for this process's own random numbers; process 0 takes the one given."""
        return seed

    def share(self, count: int) -> range:
        """Which of ``count`` things in a row are for this process; none, where there are fewer than processes."""
        return range(-(-count * self.rank // self.world), -(-count * (self.rank + 1) // self.world))

    def shares(self, data: Any) -> Any:
        """Data that gives, when asked for a batch, this process's share of it.

        A process whose share is empty gets the first sample, since it has to take part in the step; the weight of its
        loss is 0.
        """
        return data

    def weight(self, count: int) -> float:
        """The factor on this process's mean loss of a batch of ``count``.

        With it the mean over processes is the mean over the batch, whatever the shares are.
        """
        return 1.0

    def mean(self, value: Tensor) -> Tensor:
        """The mean over processes."""
        return value

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Let all processes have process 0's values, in place."""

    def leaving(self) -> None:
        """Say that an error is on its way out, and let nothing interrupt what is still to be put in order.

        torchrun ends the processes that are left once one has failed.
        """

    def evaluate(
        self, analog: nn.Module, loader: Iterable[Any], *, chips: int, seed: int = 0, **options: Any
    ) -> Report:
        """`analogsim.evaluate` with the chips shared out; the report is the same in all processes, and as of one."""
        executor = None if self.world == 1 else self
        return analogsim.evaluate(analog, loader, chips=chips, seed=seed, executor=executor, **options)


ALONE = Group()


class _Shares(TensorDataset):
    """See `Group.shares`."""

    def __init__(self, data: TensorDataset, group: Group) -> None:
        super().__init__(*data.tensors)
        self._group = group

    def __getitem__(self, index: list[int]) -> tuple[Tensor, ...]:
        mine = self._group.share(len(index))
        own = index[mine.start : mine.stop] or index[:1]
        return tuple(tensor[own] for tensor in self.tensors)


class _SharesOfSamples(Dataset[Any]):
    """See `Group.shares`: of data that give one sample after another."""

    def __init__(self, data: Any, group: Group) -> None:
        self._data = data
        self._group = group

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Any:
        return self._data[index]

    def __getitems__(self, index: list[int]) -> list[Any]:
        mine = self._group.share(len(index))
        own = index[mine.start : mine.stop] or index[:1]
        several = getattr(self._data, "__getitems__", None)
        return [self._data[at] for at in own] if several is None else list(several(own))


@dataclass(frozen=True)
class Processes(Group):
    """One of several processes, within torch's default process group.

    Args:
        training: a second group, for gradients. What computes with torch's wrapper keeps its group for ever, with the
            threads of it; those of the default group end with it, before Python does, which a thread that has yet to
            let go of the last tensor would abort.
    """

    training: dist.ProcessGroup | None = None

    @property
    def command(self) -> str:
        """See `Group`."""
        return "torchrun ... -m analogsim"

    def gather(self, value: T) -> list[T]:
        """See `Group`."""
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def each(self, work: Callable[[], T]) -> T:
        """See `Group`."""
        result, error = None, None
        try:
            result = work()
        except Exception as caught:
            error = caught
        told = None if error is None else f"process {self.rank} on {platform.node()}: {type(error).__name__}: {error}"
        failures = [failure for failure in self.gather(told) if failure is not None]
        if not failures:
            return result  # type: ignore[return-value]
        if not self.main:
            raise ElsewhereError(failures[0]) from error
        raise error or OperationError(failures[0])

    def first(self, work: Callable[[], T]) -> T:
        """See `Group`."""
        results: list[Any] = [self.each(work if self.main else _nothing)]
        dist.broadcast_object_list(results)
        return results[0]  # type: ignore[no-any-return]

    def by_turns(self, work: Callable[[], T]) -> T:
        """See `Group`."""
        first_here = 1 if self.local_rank == 0 else 2
        turn = 0 if self.main else first_here
        results: list[Any] = [self.each(work if turn == now else _nothing) for now in range(3)]
        return results[turn]  # type: ignore[no-any-return]

    def place(self, choose: Callable[[], torch.device]) -> torch.device:
        """See `Group`."""

        def own() -> torch.device:
            kind = choose().type
            if kind != "cuda":
                return torch.device(kind)
            if self.local_rank >= torch.cuda.device_count():
                raise InvalidValueError(
                    f"run_on: each process needs a GPU of its own, this machine has {torch.cuda.device_count()}; start "
                    "no more processes than that (--nproc-per-node), or use run_on=cpu"
                )
            device = torch.device(kind, self.local_rank)
            torch.cuda.set_device(device)
            return device

        device = self.each(own)
        if len({other.type for other in self.gather(device)}) > 1:
            raise InvalidValueError("run_on: some of the processes have a GPU and others have none; use run_on=cpu")
        return device

    def synchronized(self, model: nn.Module) -> nn.Module:
        """See `Group`."""
        if next(model.parameters()).device.type == "cpu":
            return model
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted

    def wrap(self, net: nn.Module) -> nn.Module:
        """See `Group`."""
        return nn.parallel.DistributedDataParallel(net, process_group=self.training)

    def average_gradients(self, tensors: Sequence[Tensor]) -> None:
        """See `Group`."""
        gradients = [tensor.grad for tensor in tensors if tensor.grad is not None]
        if gradients:
            for gradient, mean in zip(gradients, self.mean(torch.stack(gradients)), strict=True):
                gradient.copy_(mean)

    def seed(self, seed: int) -> int:
        """See `Group`."""
        return seed if self.main else random.Random(f"{seed}/{self.rank}").getrandbits(32)

    def shares(self, data: Any) -> Any:
        """See `Group`."""
        return _Shares(data, self) if type(data) is TensorDataset else _SharesOfSamples(data, self)

    def weight(self, count: int) -> float:
        """See `Group`."""
        return len(self.share(count)) * self.world / count

    def mean(self, value: Tensor) -> Tensor:
        """See `Group`."""
        value = value.clone()
        dist.all_reduce(value)
        return value / self.world

    def same(self, tensors: Iterable[Tensor]) -> None:
        """See `Group`."""
        for tensor in tensors:
            dist.broadcast(tensor, 0)

    def leaving(self) -> None:
        """See `Group`."""
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                if hasattr(signal, name):
                    signal.signal(getattr(signal, name), signal.SIG_IGN)


def _nothing() -> None:
    """What a process does while it is another one's turn."""


@contextlib.contextmanager
def joined() -> Iterator[Group]:
    """The group of the processes that torchrun started, for a block; without torchrun, of this process alone.

    Only one process tells an error: process 0 where several have it, else the first one that fails. The others leave
    without a word, by SystemExit. Warnings are process 0's. The others do not hear Ctrl-C and SIGTERM, which torchrun
    sends to all: process 0 puts its run in order and leaves, and they leave after it.
    """
    if not os.environ.keys() >= _TORCHRUN or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    from torch.distributed.rendezvous import rendezvous

    store, rank, world = next(rendezvous("env://", timeout=_PATIENCE))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=_PATIENCE)
    training: Any = dist.new_group(timeout=_PATIENCE)
    group = Processes(rank, world, int(os.environ["LOCAL_RANK"]), training)
    try:
        with warnings.catch_warnings():
            if not group.main:
                group.leaving()
                warnings.simplefilter("ignore")
            yield group
    except BaseException as error:
        group.leaving()
        atexit.register(_end)
        if isinstance(error, ElsewhereError) or not _first_to_fail(store):
            raise SystemExit(1) from None
        raise
    dist.destroy_process_group()


def _end() -> None:
    """End at once: the threads of a broken group may wait for one another for ever."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _first_to_fail(store: Any) -> bool:
    try:
        return bool(store.add("analogsim/failed", 1) == 1)
    except RuntimeError:  # the process that kept the store is gone, and so has failed before
        return False
