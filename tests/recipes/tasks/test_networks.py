import builtins

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from analogsim.recipes.tasks import networks


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", networks.MODEL_NAMES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 20, 40), (1, 33, 29)])
def test_our_models_take_any_image_and_give_logits(name, shape):
    model = networks.build(name, shape, 7, seed=0)
    logits = model(torch.randn(3, *shape))
    assert logits.shape == (3, 7)
    assert (logits.exp().sum(1) - 1).abs().max() > 1e-3  # not log-probabilities
    F.cross_entropy(logits, torch.tensor([0, 3, 6])).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("mlp", (1, 28, 28), 785 * 100 + 101 * 100 + 101 * 10),
        ("mlp-16", (1, 8, 8), 65 * 16 + 17 * 16 + 17 * 10),
        ("lenet5", (1, 28, 28), 61_706),
        ("lenet5", (1, 8, 8), 61_706),
        ("resnet20", (3, 32, 32), 269_722),  # 0.27 M in the paper
        ("resnet32", (3, 32, 32), 464_154),  # 0.46 M
    ],
)
def test_parameter_counts(name, shape, count):
    assert parameters(networks.build(name, shape, 10)) == count


@pytest.mark.parametrize(("name", "depth"), [("resnet20", 20), ("resnet32", 32)])
def test_depth_of_the_resnets(name, depth):
    model = networks.build(name, (3, 32, 32), 10)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == depth
    assert model[:-3](torch.randn(1, 3, 32, 32)).shape == (1, 64, 8, 8)


def test_mlp_of_the_thread():
    model = networks.build("mlp", (1, 28, 28), 10)
    assert [type(m) for m in model] == [nn.Flatten, nn.Linear, nn.Sigmoid, nn.Linear, nn.Sigmoid, nn.Linear]
    assert [m.out_features for m in model if isinstance(m, nn.Linear)] == [100, 100, 10]


def test_only_small_images_are_enlarged():
    assert isinstance(networks.build("lenet5", (1, 8, 8), 10)[0], nn.Upsample)
    assert isinstance(networks.build("lenet5", (1, 28, 28), 10)[0], nn.Conv2d)
    wide = networks.build("resnet20", (1, 20, 40), 10)[0]
    assert wide(torch.zeros(1, 1, 20, 40)).shape == (1, 1, 28, 40)


def test_shortcut_has_no_parameters_and_adds_zero_channels():
    x = torch.randn(2, 16, 7, 8)
    shortcut = networks.Shortcut(16, 2)
    y = shortcut(x)
    assert parameters(shortcut) == 0
    assert torch.equal(y[:, :16], x[:, :, ::2, ::2])
    assert torch.equal(y[:, 16:], torch.zeros(2, 16, 4, 4))


def test_block_is_the_sum_of_its_two_branches():
    block = networks.Block(4, 8, 2).eval()
    x = torch.randn(2, 4, 9, 9)
    nn.init.zeros_(block.bn2.weight)  # its bias is zero already: the convolutions add nothing
    assert torch.equal(block(x), networks.Shortcut(4, 2)(x).relu())


@pytest.mark.parametrize("name", [*networks.MODEL_NAMES, "squeezenet1_1"])
def test_a_seed_is_a_network_and_leaves_the_global_state_alone(name):
    if name not in networks.MODEL_NAMES:
        pytest.importorskip("torchvision")
    before = torch.get_rng_state()
    first, again, other = (networks.build(name, (1, 8, 8), 10, seed=s).state_dict() for s in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_a_seeded_network_does_not_seed_accelerators(monkeypatch):
    def fail(seed):
        pytest.fail("torch.manual_seed also seeds the accelerators")

    monkeypatch.setattr(torch, "manual_seed", fail)
    networks.build("mlp", (1, 8, 8), 10, seed=1)


def test_a_seeded_network_does_not_depend_on_the_default_device():
    with torch.device("meta"):
        model = networks.build("mlp", (1, 8, 8), 10, seed=1)
    assert torch.equal(model.fc1.weight, networks.build("mlp", (1, 8, 8), 10, seed=1).fc1.weight)


def test_without_a_seed_the_global_state_is_used():
    torch.manual_seed(0)
    first, second = (networks.build("mlp", (1, 8, 8), 10).fc1.weight for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_models(channels):
    pytest.importorskip("torchvision")
    model = networks.build("resnet18", (channels, 8, 8), 7, seed=0).eval()
    with torch.no_grad():
        assert model(torch.randn(2, channels, 8, 8)).shape == (2, 7)
        assert model[:-1](torch.randn(2, channels, 8, 8)).shape == (2, 3, 64, 64)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"model"}


def test_the_grey_channel_is_given_to_all_three():
    x = torch.randn(2, 1, 4, 4)
    assert torch.equal(networks.RepeatChannel()(x), torch.cat([x, x, x], 1))


def test_names_of_torchvision_modules_do_not_depend_on_the_data_set():
    pytest.importorskip("torchvision")
    with torch.device("meta"):
        small, large = (
            list(networks.build("mobilenet_v3_small", shape, 10).state_dict()) for shape in ((1, 8, 8), (3, 224, 224))
        )
    assert small == large


# One of each kind that needs its own size or options; without weights in memory, so that it is quick.
@pytest.mark.parametrize("name", ["vit_b_32", "googlenet", "inception_v3", "alexnet", "swin_t"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 300, 310)])
def test_particular_torchvision_models(name, shape):
    pytest.importorskip("torchvision")
    with torch.device("meta"):
        logits = networks.build(name, shape, 7)(torch.empty(2, *shape))
    assert logits.shape == (2, 7)


@pytest.mark.slow
def test_all_torchvision_classifiers():
    models = pytest.importorskip("torchvision.models")
    names = models.list_models(module=models)
    assert len(names) >= 80
    for name in names:
        # A regnet computes its widths with tensors, so it cannot be built without data; the smallest one is.
        if name.startswith("regnet_") and name != "regnet_y_400mf":
            continue
        with torch.device("cpu" if name.startswith("regnet_") else "meta"):
            logits = networks.build(name, (1, 28, 28), 7)(torch.empty(2, 1, 28, 28))
        assert logits.shape == (2, 7), name


@pytest.mark.parametrize(
    ("name", "near"),
    [("lenet", "'lenet5'"), ("ResNet18", "'resnet18'"), ("vit_b16", "'vit_b_16'"), ("MLP", "'mlp'")],
)
def test_unknown_names_show_ours_and_the_nearest(name, near):
    pytest.importorskip("torchvision")
    with pytest.raises(ValueError, match=rf"'{name}', known are mlp, .*lenet5, .*did you mean .*{near}"):
        networks.build(name, (1, 28, 28), 10)


@pytest.mark.parametrize("name", ["zzzzzz", "fasterrcnn_resnet50_fpn"])
def test_not_a_classifier(name):
    pytest.importorskip("torchvision")
    with pytest.raises(ValueError, match=rf"unknown name '{name}', known are mlp, .*torchvision's classifiers"):
        networks.build(name, (3, 32, 32), 10)


def test_torchvision_models_of_other_channels():
    pytest.importorskip("torchvision")
    with pytest.raises(ValueError, match="resnet18 takes images of 1 or 3 channels, got 2"):
        networks.build("resnet18", (2, 32, 32), 10)


@pytest.mark.parametrize("shape", [(28, 28), (0, 28, 28)])
def test_shapes_that_make_no_sense(shape):
    with pytest.raises(ValueError, match=r"shape must be \(channels, height, width\), each >= 1, got \("):
        networks.build("mlp", shape, 10)


def test_no_classes():
    with pytest.raises(ValueError, match="classes must be >= 1, got 0"):
        networks.build("mlp", (1, 28, 28), 0)


def test_without_torchvision_ours_still_work(monkeypatch):
    real = builtins.__import__

    def fake(name, *args, **kwargs):
        if name.split(".")[0] == "torchvision":
            raise ModuleNotFoundError("No module named 'torchvision'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fake)
    networks.build("lenet5", (1, 28, 28), 10)
    with pytest.raises(ImportError, match=r"'resnet18' is none of ours.*analogsim-torch\[recipes\]"):
        networks.build("resnet18", (3, 32, 32), 10)
