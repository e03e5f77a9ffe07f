"""Members of other libraries without a promise: used in one file a library, and asked here whether they are well.

A canary looks at a member itself, not through our name for it, and fails with its name and the file that relies on it.
"""

from __future__ import annotations

import ast
import glob
import inspect
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analogsim.recipes.study.optuna_private import signs_of_life
from analogsim.utils.torch_private import GENERATOR_WORDS, fill_generator, unfolded
from tests.whole.tree import Module, read_tree

ROOT = Path(__file__).resolve().parents[2]
TORCH = "analogsim/utils/torch_private.py"
OPTUNA = "recipes/study/optuna_private.py"
MLFLOW = "recipes/tracking/mlflow_private.py"
VIEWS = "recipes/tracking/page_views.py"

Canary = Callable[[], None]
CANARIES: dict[str, tuple[str, Canary]] = {}


def canary(file: str, *names: str) -> Callable[[Canary], Canary]:
    """Register what is asked of members that a file relies on."""

    def add(check: Canary) -> Canary:
        CANARIES.update((name, (file, check)) for name in names)
        return check

    return add


@canary(TORCH, "torch._C._are_functorch_transforms_active")
def _() -> None:
    seen = []

    def look(x: Tensor) -> Tensor:
        seen.append(torch._C._are_functorch_transforms_active())
        return x.sum()

    look(torch.ones(2))
    for transform in (torch.func.vmap, torch.func.grad, torch.func.functionalize):
        transform(look)(torch.ones(2))
    torch.func.jvp(look, (torch.ones(2),), (torch.ones(2),))
    assert seen == [False, True, True, True, True]


@canary(TORCH, "torch._C._functorch.is_functorch_wrapped_tensor", "torch._C._functorch.is_batchedtensor")
def _() -> None:
    seen = []

    def look(x: Tensor) -> Tensor:
        functorch = torch._C._functorch
        seen.append((functorch.is_functorch_wrapped_tensor(x), functorch.is_batchedtensor(x)))
        return x.sum()

    look(torch.ones(2))
    torch.func.grad(look)(torch.ones(2))
    torch.func.vmap(look)(torch.ones(2, 2))
    assert seen == [(False, False), (True, False), (True, True)]


@canary(TORCH, "torch._C._autograd._top_saved_tensors_default_hooks")
def _() -> None:
    def pack(tensor: Tensor) -> Tensor:
        return tensor

    def unpack(tensor: Tensor) -> Tensor:
        return tensor

    top = torch._C._autograd._top_saved_tensors_default_hooks
    assert top(True) is None
    with torch.autograd.graph.saved_tensors_hooks(str, str), torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        assert top(True) == (pack, unpack)
    assert top(True) is None


@canary(TORCH, "torch._C._dynamo.eval_frame.get_eval_frame_callback")
def _() -> None:
    from torch._C._dynamo.eval_frame import get_eval_frame_callback

    seen = []

    def look() -> None:
        seen.append(get_eval_frame_callback() is not None)

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch._dynamo.graph_break()
            look()
            return x + 1

    look()
    torch.compile(Broken(), backend="eager")(torch.ones(2))
    look()
    assert seen == [False, True, False]


@canary(TORCH, "torch.compiler._is_exporting_flag")
def _() -> None:
    assert torch.compiler._is_exporting_flag is False
    seen = []

    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.compiler._is_exporting_flag)
            return x + 1

    torch.export.export(Looks(), (torch.ones(2),), strict=False)
    assert seen[-1] is True


@canary(TORCH, "torch.ops.aten._trilinear")
def _() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    called = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append((func.overloadpacket, len(args)))
            return func(*args, **(kwargs or {}))

    layer = nn.Bilinear(2, 3, 4)
    with torch.no_grad(), Mode():
        layer(torch.ones(5, 2), torch.ones(5, 3))
    assert torch.ops.aten._trilinear in [operation for operation, _ in called]
    one, weight, other = torch.ones(5, 2), torch.ones(4, 2, 3), torch.ones(5, 3)
    out = torch.ops.aten._trilinear(one, weight, other, [1, 3], [0], [1, 2], [2, 3])
    assert torch.equal(out, torch.full((5, 4), 6.0))


@canary(TORCH, "torch._ops.OpOverload")
def _() -> None:
    assert isinstance(torch.ops.aten.linear.default, torch._ops.OpOverload)
    assert not isinstance(torch.nn.functional.linear, torch._ops.OpOverload)


@canary(TORCH, "torch.ops.aten._grouped_mm")
def _() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    called = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(func.overloadpacket)
            return func(*args, **(kwargs or {}))

    rows, matrices, ends = torch.ones(6, 8), torch.ones(2, 8, 16), torch.tensor([2, 6], dtype=torch.int32)
    with torch.no_grad(), Mode():
        out = torch.nn.functional.grouped_mm(rows, matrices, offs=ends)
    assert torch.ops.aten._grouped_mm in called
    assert torch.equal(out, torch.full((6, 16), 8.0))


@canary(
    TORCH,
    "torch.utils._pytree.tree_leaves",
    "torch.utils._pytree.tree_map",
    "torch.utils._pytree.tree_flatten",
    "torch.utils._pytree.tree_unflatten",
)
def _() -> None:
    from torch.utils import _pytree

    nested = {"a": [1, (2, None)], "b": 3}
    assert [leaf for leaf in _pytree.tree_leaves(nested) if leaf is not None] == [1, 2, 3]
    assert _pytree.tree_map(lambda leaf: leaf and -leaf, nested) == {"a": [-1, (-2, None)], "b": -3}
    leaves, structure = _pytree.tree_flatten(nested)
    assert _pytree.tree_unflatten(leaves, structure) == nested


@canary(TORCH, "torch.utils._python_dispatch.TorchDispatchMode")
def _() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    called = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(func.overloadpacket)
            return func(*args, **(kwargs or {}))

    with Mode():
        torch.mm(torch.ones(2, 2), torch.ones(2, 2))
    assert torch.ops.aten.mm in called


@canary(TORCH, "torch._compile._disable_dynamo")
def _() -> None:
    from torch._compile import _disable_dynamo

    graphs = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    @_disable_dynamo
    def apart(x: Tensor) -> Tensor:
        assert not torch.compiler.is_compiling()
        return x + 1

    torch.compiler.reset()
    answer = torch.compile(lambda x: apart(x * 2) * 3, backend=count)(torch.ones(2))
    torch.compiler.reset()
    assert torch.equal(answer, torch.full((2,), 9.0))
    assert len(graphs) == 2


@canary(TORCH, "torch.nn.modules.batchnorm._BatchNorm")
def _() -> None:
    from torch.nn.modules.batchnorm import _BatchNorm

    kinds = [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm]
    assert all(issubclass(kind, _BatchNorm) for kind in (*kinds, nn.LazyBatchNorm2d))
    assert not issubclass(nn.InstanceNorm2d, _BatchNorm)
    assert not issubclass(nn.LayerNorm, _BatchNorm)


@canary(TORCH, "torch.nn.functional._canonical_mask", "torch.nn.functional._none_or_dtype")
def _() -> None:
    functional: Any = nn.functional
    mask = torch.tensor([True, False])
    assert functional._none_or_dtype(None) is None
    assert functional._none_or_dtype(mask) is torch.bool
    found = functional._canonical_mask(mask, "mask", None, "", torch.float32, check_other=False)
    assert torch.equal(found, torch.tensor([-torch.inf, 0.0]))
    assert functional._canonical_mask(None, "mask", None, "", torch.float32) is None
    with pytest.raises(AssertionError, match="only bool and floating"):
        functional._canonical_mask(mask.int(), "mask", None, "", torch.float32)


@canary(TORCH, "Tensor._version")
def _() -> None:
    tensor = torch.zeros(2, 2)
    before = tensor._version
    tensor[0].add_(1)  # a view of it
    assert tensor._version > before
    now = tensor._version
    assert tensor.clone()._version == 0
    assert tensor._version == now


@canary(TORCH, "UntypedStorage._cdata")
def _() -> None:
    tensor = torch.zeros(4)
    key = tensor.untyped_storage()._cdata
    assert tensor.view(2, 2).untyped_storage()._cdata == key == tensor[2:].untyped_storage()._cdata
    assert tensor.clone().untyped_storage()._cdata != key


@canary(TORCH, "nn.Module._parameters", "nn.Module._buffers")
def _() -> None:
    module = nn.BatchNorm1d(2)
    assert list(module._parameters) == ["weight", "bias"]
    assert list(module._buffers) == ["running_mean", "running_var", "num_batches_tracked"]
    assert module._parameters["weight"] is module.weight
    other = nn.BatchNorm1d(2)
    other.__dict__["_buffers"] = dict(module._buffers)
    assert other.running_mean is module.running_mean
    other.weight = None
    assert other._parameters["weight"] is None
    nn.utils.parametrize.register_parametrization(module, "weight", nn.Identity())
    assert "weight" not in module._parameters


@canary(TORCH, "nn.Module._forward_pre_hooks")
def _() -> None:
    module, called = nn.Linear(1, 1), []
    hook = module.register_forward_pre_hook(lambda *_: called.append(1))
    (one,) = module._forward_pre_hooks.values()
    one(module, None)
    assert called == [1]
    hook.remove()
    assert not module._forward_pre_hooks


@canary(TORCH, "nn.Module._forward_hooks")
def _() -> None:
    module, called = nn.Linear(1, 1), []
    hook = module.register_forward_hook(lambda *_: called.append(1))
    assert list(module._forward_hooks) == [hook.id]
    del module._forward_hooks[hook.id]
    module(torch.ones(1))
    assert called == []


@canary(TORCH, "torch._dynamo _dynamo_marked_constant")
def _() -> None:
    """Of a method: it is called on the object itself, once for a graph, and nothing of it comes into the graph."""

    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def more(self) -> bool:
            self.count += 1
            return self.count > 100

        more._dynamo_marked_constant = True  # type: ignore[attr-defined]

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.counter = Counter()

        def forward(self, x: Tensor) -> Tensor:
            return x if self.counter.more() else x + 1

    torch.compiler.reset()
    network = Network()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert [compiled(torch.zeros(())).item() for _ in range(3)] == [1.0, 1.0, 1.0]
    assert network.counter.count == 1
    torch.export.export(network, (torch.zeros(1),), strict=True)
    assert network.counter.count > 1


@canary(TORCH, "torch._C._get_tracing_state")
def _() -> None:
    seen = []

    def look(x: Tensor) -> Tensor:
        seen.append(torch._C._get_tracing_state() is not None)
        return x + 1

    look(torch.ones(1))
    torch.jit.trace(look, (torch.ones(1),), check_trace=False)
    assert seen == [False, True]


@canary(TORCH, "nn.Module._compiled_call_impl", "OptimizedModule._orig_mod")
def _() -> None:
    module = nn.Linear(1, 1)
    assert module._compiled_call_impl is None
    module.compile(backend="eager")
    assert vars(module)["_compiled_call_impl"] is not None
    assert torch.compile(module, backend="eager")._orig_mod is module
    assert not hasattr(module, "_orig_mod")


@canary(TORCH, "torch._dynamo.maybe_mark_dynamic")
def _() -> None:
    sizes = []

    def look(graph: Any, inputs: Any) -> Any:
        sizes.append(
            next(
                node.meta["example_value"].shape
                for node in graph.graph.nodes
                if node.op == "placeholder" and isinstance(node.meta.get("example_value"), Tensor)
            )
        )
        return graph.forward

    torch.compiler.reset()
    compiled, tensor = torch.compile(lambda x: x * 2, backend=look), torch.ones(4, 6)
    torch._dynamo.maybe_mark_dynamic(tensor, 0)
    compiled(tensor)
    compiled(torch.ones(9, 6))
    torch.compiler.reset()
    assert len(sizes) == 1, "compiled again for another size"


@canary(TORCH, "torch.Generator.set_state")
def _() -> None:
    # The member is public, what the state is made of is not: words of a Mersenne Twister, as numpy has one.
    words = np.random.default_rng(0).integers(2**32, size=GENERATOR_WORDS, dtype=np.uint32)
    twister = np.random.MT19937()
    twister.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": GENERATOR_WORDS}}
    generator = fill_generator(torch.Generator().manual_seed(1), words)
    drawn = torch.empty(2000, dtype=torch.int32).random_(generator=generator)
    assert drawn.tolist() == [int(word) & 0x7FFFFFFF for word in twister.random_raw(2000)]


@canary(TORCH, "torch._dynamo.config.allow_rnn")
def _() -> None:
    import torch._dynamo

    assert torch._dynamo.config.allow_rnn is False


@canary(TORCH, "nn.Conv2d._conv_forward")
def _() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
    x = torch.randn(1, 1, 5, 5)
    assert torch.equal(layer._conv_forward(x, layer.weight, layer.bias), layer(x))
    assert torch.equal(layer._conv_forward(x, 2 * layer.weight, None), 2 * layer._conv_forward(x, layer.weight, None))


@canary(TORCH, "nn.ConvTranspose2d._output_padding")
def _() -> None:
    layer = nn.ConvTranspose2d(1, 1, 3, stride=2)
    where = layer.stride, layer.padding, layer.kernel_size, 2, layer.dilation
    assert layer._output_padding(torch.zeros(1, 1, 4, 4), [10, 9], *where) == [1, 0]
    with pytest.raises(ValueError, match="requested an output size"):
        layer._output_padding(torch.zeros(1, 1, 4, 4), [20, 9], *where)


@canary(TORCH, "nn.MultiheadAttention._qkv_same_embed_dim")
def _() -> None:
    assert nn.MultiheadAttention(4, 2)._qkv_same_embed_dim is True
    assert nn.MultiheadAttention(4, 2, kdim=3)._qkv_same_embed_dim is False


@canary(TORCH, "nn.RNNBase._flat_weights_names", "nn.RNNBase._update_flat_weights", "nn.RNNBase._flat_weights")
def _() -> None:
    layer = nn.LSTM(2, 3, bidirectional=True)
    kinds = [f"{kind}_{part}_l0" for kind in ("weight", "bias") for part in ("ih", "hh")]
    names = layer._flat_weights_names
    assert names == [*kinds, *(f"{kind}_reverse" for kind in kinds)]
    assert all(one is getattr(layer, name) for one, name in zip(layer._flat_weights, names, strict=True))
    del layer.weight_ih_l0
    layer.weight_ih_l0 = torch.zeros(12, 2)  # as pruning leaves it
    layer._update_flat_weights()
    assert layer._flat_weights[0] is layer.weight_ih_l0
    assert "self._flat_weights" in inspect.getsource(nn.RNNBase.flatten_parameters)


def _study() -> Any:
    optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")
    optuna.logging.set_verbosity(logging.WARNING)
    storage = optuna.storages.RDBStorage("sqlite://", heartbeat_interval=1)
    return optuna.create_study(storage=storage, study_name="canary")


@canary(OPTUNA, "Study._storage", "_CachedStorage._backend", "FrozenTrial._trial_id")
def _() -> None:
    study = _study()
    trial = study.ask()
    assert study._storage._backend.engine.dialect.name == "sqlite"
    (frozen,) = study.get_trials()
    assert frozen._trial_id == trial._trial_id
    assert study._storage.get_trial(frozen._trial_id).number == frozen.number
    assert study._storage.get_study_id_from_name("canary") == 1
    import optuna

    assert not hasattr(getattr(optuna.create_study()._storage, "_backend", None), "engine")


@canary(OPTUNA, "RDBStorage._get_trials", "RDBStorage._get_stale_trial_ids")
def _() -> None:
    study = _study()
    storage = study._storage._backend
    study.ask()
    assert [trial.number for trial in storage._get_trials(1, None, set(), -1)] == [0]
    assert storage._get_stale_trial_ids(1) == []
    storage._get_stale_trial_ids = lambda study_id: [study_id]
    assert study._storage._get_stale_trial_ids(7) == [7]  # the cache hands it on to what stands there
    reading = [name for name in dir(storage) if name.startswith("get_")]
    assert {"get_all_trials", "get_trial", "get_study_user_attrs", "get_all_studies"} <= set(reading)


@canary(OPTUNA, "RDBStorage.record_heartbeat", "table trial_heartbeats", "table trials", "table study_user_attributes")
def _() -> None:
    study = _study()
    from sqlalchemy import text

    study.set_user_attr("a", {"b": [1, None]})
    study._storage.record_heartbeat(study.ask()._trial_id)
    calls: list[int] = []
    study._storage._backend.record_heartbeat = calls.append
    study._storage.record_heartbeat(7)
    assert calls == [7]  # the cache hands it on to what stands there
    with study._storage._backend.engine.begin() as connection:
        rows = connection.execute(text("select study_id, key, value_json from study_user_attributes")).all()
        assert [(*row[:2], json.loads(row[2])) for row in rows] == [(1, "a", {"b": [1, None]})]
        assert connection.execute(text("select trial_id from trial_heartbeats")).scalars().all() == [1]
        ((trial, of_study, sign),) = connection.execute(signs_of_life()).all()
        assert (trial, of_study) == (1, 1)
        assert sign
        connection.execute(text("update study_user_attributes set value_json = '5'"))
    assert study.user_attrs == {"a": 5}


@canary(OPTUNA, "JournalStorage._backend", "JournalFileBackend._file_path")
def _() -> None:
    optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")
    with tempfile.TemporaryDirectory() as place:
        backend = optuna.storages.journal.JournalFileBackend(f"{place}/journal")
        study = optuna.create_study(storage=optuna.storages.JournalStorage(backend))
        assert study._storage._backend._file_path == f"{place}/journal"
    assert not hasattr(optuna.create_study()._storage, "_backend")


@canary(OPTUNA, "FrozenTrial.system_attrs retry_history")
def _() -> None:
    study = _study()
    import optuna

    again = optuna.storages.RetryHeartbeatStaleTrialCallback()
    for number in range(2):
        study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
        again(study, study.get_trials()[number])
    assert [list(trial.system_attrs.get("retry_history", ())) for trial in study.get_trials()] == [[], [0], [0, 1]]


@canary(MLFLOW, "tag mlflow.loggedArtifacts")
def _() -> None:
    tags = pytest.importorskip("mlflow.utils.mlflow_tags", reason="needs analogsim-torch[recipes]")
    assert tags.MLFLOW_LOGGED_ARTIFACTS == "mlflow.loggedArtifacts"
    from mlflow import MlflowClient

    assert '{"path": artifact_file, "type": "table"}' in inspect.getsource(MlflowClient.log_table)


@canary(MLFLOW, "tag mlflow.sharedViewState", "tag mlflow.runColor", "workflowType of a link")
def _() -> None:
    from analogsim.recipes.tracking.mlflow_private import MODEL_TRAINING, RUN_COLOR

    pages = _pages()
    assert "mlflow.sharedViewState" in pages
    assert f'"{RUN_COLOR}"' in pages
    name, _, value = MODEL_TRAINING.partition("=")
    assert f'.get("{name}")' in pages
    assert f'"{value}"' in pages


@canary(MLFLOW, "tag mlflow.experimentKind")
def _() -> None:
    from analogsim.recipes.tracking.mlflow_private import EXPERIMENT_KIND

    assert all(f'"{word}"' in _pages() for word in EXPERIMENT_KIND)


@canary(VIEWS, "page state searchFilter", "page state compareRunCharts", "page state compareRunSections")
def _() -> None:
    pages = _pages()
    for word in (
        *("searchFilter", "orderByKey", "orderByAsc", "selectedColumns", "columnOrder", "columnWidths"),
        *("runsHiddenMode", "SHOW_ALL", "compareRunCharts", "compareRunSections", "isAccordionReordered"),
        *("metricSectionId", "runsCountToCompare", "isGenerated", "xAxisScaleType", "viewStateShareKey"),
        *(
            "columns",
            "cardHeight",
            "compareRunsMode",
            "selectedParams",
            "selectedMetrics",
            "showAllRuns",
            "deflate;",
            "runDateAndNestInfo",
        ),
    ):
        assert word in pages, word


def _pages() -> str:
    """The programs of MLflow's pages."""
    mlflow = pytest.importorskip("mlflow", reason="needs analogsim-torch[recipes]")
    files = glob.glob(str(Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js" / "*.js"))
    assert files
    return "".join(Path(file).read_text(encoding="utf-8", errors="ignore") for file in files)


@canary(MLFLOW, "SqlAlchemyStore._engine_map", "columns of places of artifacts")
def _() -> None:
    """Engines are kept by address, and each place of artifacts is a column of text."""
    stores = pytest.importorskip("mlflow.store.tracking.sqlalchemy_store", reason="needs analogsim-torch[recipes]")
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.model_registry import sqlalchemy_store

    from analogsim.recipes.tracking.mlflow_private import ARTIFACT_COLUMNS

    assert sqlalchemy_store is not None
    assert isinstance(stores.SqlAlchemyStore._engine_map, dict)
    tables = Base.metadata.tables
    assert all(column in tables[table].columns for table, column in ARTIFACT_COLUMNS)
    places = {
        (name, column.name)
        for name, table in tables.items()
        for column in table.columns
        if column.name in ("artifact_location", "artifact_uri", "storage_location")
    }
    assert places <= set(ARTIFACT_COLUMNS)


@canary(MLFLOW, "logger mlflow.store.db.utils", "module mlflow.store.tracking.sqlalchemy_store")
def _() -> None:
    from importlib.util import find_spec

    pytest.importorskip("mlflow", reason="needs analogsim-torch[recipes]")
    found = find_spec("mlflow.store.db.utils")
    assert found is not None
    assert found.origin is not None
    assert "_logger = logging.getLogger(__name__)" in Path(found.origin).read_text(encoding="utf-8")
    assert find_spec("mlflow.store.tracking.sqlalchemy_store") is not None


@pytest.mark.parametrize("name", CANARIES)
def test_canary(name: str) -> None:
    file, check = CANARIES[name]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what torch and Optuna call experimental, or deprecated in themselves
            check()
    except Exception as error:
        pytest.fail(f"{name}, which {file} relies on, is not what it was: {type(error).__name__}: {error}")


# What of other libraries is used, read from the text.

OBJECTS = (
    *(torch, torch.nn.functional, nn.Module(), nn.Linear(1, 1), nn.Conv2d(1, 1, 1), nn.ConvTranspose2d(1, 1, 1)),
    *(nn.LSTM(1, 1), nn.MultiheadAttention(1, 1), nn.BatchNorm1d(1), torch.zeros(1), torch.zeros(1).untyped_storage()),
    *(torch.optim.SGD([nn.Parameter(torch.zeros(1))]), torch.optim.lr_scheduler.LRScheduler, torch.Generator()),
    *(torch.utils.data.DataLoader([0]), torch.autograd.Function, torch.distributed),
)
ELSEWHERE = {"_orig_mod", "_storage", "_backend", "_trial_id", "_study_id", "_get_trials", "_get_stale_trial_ids"}
DOCUMENTED = {"_exit", "_replace", "_asdict", "_fields", "_make"}  # of os, and of named tuples


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name.strip("_") != ""


FOREIGN = ELSEWHERE | {name for one in OBJECTS for name in dir(one) if _is_private(name)}


def defined_in(tree: ast.AST) -> set[str]:
    """The names that a file gives to something: functions, classes, arguments, variables, attributes of self."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found |= {node.attr} if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls") else set()
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "object.__setattr__":  # as frozen dataclasses do
            found |= {ast.literal_eval(name) for name in node.args[1:2] if isinstance(name, ast.Constant)}
    return found


def private_members(tree: ast.AST, ours: set[str]) -> Iterator[tuple[str, int]]:
    """The private members of others that a file uses: what nothing of ours is called, or something of theirs is.

    Args:
        tree: the file's.
        ours: names that anything in our packages has.
    """
    here = defined_in(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((name, node.lineno) for name in _imported(node) if any(map(_is_private, name.split("."))))
        elif isinstance(node, ast.Attribute) and _is_private(node.attr) and node.attr not in here | DOCUMENTED:
            if node.attr in FOREIGN or node.attr not in ours:
                yield node.attr, node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in FOREIGN - here:
            yield node.value, node.lineno  # for getattr, or in an object's dictionary


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """What a statement imports of other packages."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    ours = node.level or (node.module or "").partition(".")[0] in ("analogsim", "benchmarks")
    return [] if ours else [f"{node.module}.{alias.name}" for alias in node.names]


def _modules() -> dict[str, Module]:
    import analogsim

    place = Path(analogsim.__file__).resolve().parent
    return read_tree(*(folder for folder in (place, ROOT / "benchmarks") if folder.is_dir()))


def _is_for_it(module: Module) -> bool:
    return module.path.stem.endswith("_private")


def test_private_members_are_used_in_one_file_a_library() -> None:
    modules = _modules()
    ours = set().union(*(defined_in(module.tree) for module in modules.values()))
    found = [
        f"{module.path}:{line} {name}"
        for module in modules.values()
        if not _is_for_it(module)
        for name, line in private_members(module.tree, ours)
    ]
    assert not found, "\n".join(["give it a name in a file *_private.py, and a canary here:", *found])


def test_every_private_member_has_its_canary() -> None:
    known = {part for name in CANARIES for part in name.replace(" ", ".").split(".")}
    own = [module for module in _modules().values() if _is_for_it(module)]
    assert {module.path.stem for module in own} == {"torch_private", "optuna_private", "mlflow_private"}
    for module in own:
        used = {
            part for name, _ in private_members(module.tree, set()) for part in name.split(".") if _is_private(part)
        }
        assert sorted(used - known) == [], module.path
        assert any(isinstance(node, ast.Name) and node.id == "CHECKED" for node in ast.walk(module.tree)), module.path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import torch\ntorch._C._x()", ["_x", "_C"]),
        ("from torch.utils._pytree import tree_map", ["torch.utils._pytree.tree_map"]),
        ("from torch.utils import _pytree", ["torch.utils._pytree"]),
        ("import torch._dynamo", ["torch._dynamo"]),
        ("def f(tensor): return tensor._version", ["_version"]),
        ("class A:\n    def f(self): return self._parameters", ["_parameters"]),
        ("getattr(module, '_buffers')", ["_buffers"]),
        ("study._storage", ["_storage"]),
        ("library.thing._unheard_of", ["_unheard_of"]),
        ("class A:\n    def f(self): self._own = other._own", []),
        ("thing._ours", []),
        ("from analogsim.a import _b", []),
        ("os._exit(0)", []),
        ("x.__class__", []),
    ],
)
def test_the_walk_sees_them(text: str, names: list[str]) -> None:
    assert [name for name, _ in private_members(ast.parse(text), {"_ours", "_parameters"})] == names


def test_functions_that_are_handed_to_modes_as_a_whole_show_their_parts() -> None:
    """A function that is handed to modes as a whole asks has_torch_function, and nothing else, whether it is to be."""
    from torch.overrides import TorchFunctionMode

    seen = []

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    attention = torch.nn.functional.multi_head_attention_forward
    x, weight = torch.ones(3, 1, 4), torch.ones(12, 4)
    given = (x, x, x, 4, 2, weight, None, None, None, False, 0.0, torch.ones(4, 4), None)
    with Mode():
        wanted = attention(*given)[0]
        assert torch.nn.functional.linear not in seen
        found = unfolded(attention)(*given)[0]
    assert torch.nn.functional.linear in seen
    assert torch.equal(found, wanted)
