"""The networks of the zoo: how they are made, and what is compared of them."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn


def test_deviation_is_relative_and_sees_other_shapes() -> None:
    from benchmarks.harness.zoo_networks import deviation

    one = torch.tensor([1.0, -4.0])
    assert deviation([one, torch.zeros(0)], [one + 0.4, torch.zeros(0)]) == pytest.approx(0.4 / 3.6)
    assert deviation([one], [one[:1]]) == float("inf")


def test_networks_are_the_same_each_time() -> None:
    from benchmarks.harness.zoo_networks import NETWORKS

    for _ in range(2):
        torch.rand(1)
        model, example = NETWORKS["u-net"].build()
        again, other = NETWORKS["u-net"].build()
        assert torch.equal(example.args[0], other.args[0])
        assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))


def test_an_example_moves_what_is_floating_point() -> None:
    from benchmarks.harness.zoo_networks import Example

    words, mask, x = torch.tensor([1, 2]), torch.tensor([True, False]), torch.ones(2)
    example = Example((words, [x, {"mask": mask}]), {"x": (x, 3)}, {"targets": [{"boxes": x}]}, samples=2)
    moved = example.to(torch.float64)
    assert (moved.args[0].dtype, moved.args[1][1]["mask"].dtype) == (torch.int64, torch.bool)
    found = [moved.args[1][0], moved.kwargs["x"][0], moved.training["targets"][0]["boxes"]]
    assert [each.dtype for each in found] == [torch.float64] * 3
    assert (moved.kwargs["x"][1], moved.samples) == (3, 2)
    assert x.dtype is torch.float32


def test_training_takes_its_own_inputs() -> None:
    from benchmarks.harness.zoo_networks import Example

    class Told(nn.Module):
        def forward(self, *args: int, **kwargs: int) -> tuple[tuple[int, ...], dict[str, int]]:
            return args, kwargs

    example = Example((1,), {"x": 2}, {"targets": 3})
    assert example.run(Told()) == ((1,), {"x": 2, "targets": 3})
    assert example.run(Told().eval()) == ((1,), {"x": 2})


def test_tensors_are_found_wherever_they_are_and_only_floating_point_ones() -> None:
    from benchmarks.harness.zoo_networks import tensors

    a, b, c, d = (torch.full((1,), float(number)) for number in range(4))
    output = OrderedDict(x=a, y=[b, (c, torch.tensor([7]), None, "text")], z={"more": {"d": d}})
    assert [each.item() for each in tensors(output)] == [0, 1, 2, 3]
    assert list(tensors(torch.tensor([1]))) == []


def test_the_loss_is_what_a_network_hands_out_or_else_made_of_its_outputs() -> None:
    from benchmarks.harness.zoo_networks import loss_of

    assert loss_of(SimpleNamespace(loss=torch.tensor(3.0))).item() == 3  # as transformers do
    assert loss_of({"one": torch.tensor(1.0), "other": torch.tensor(2.5)}).item() == 3.5  # as detection does
    assert loss_of((torch.tensor([1.0, 3.0]), torch.tensor([[2.0]]))).item() == 5 + 4


def test_every_network_has_its_name_and_its_library() -> None:
    from benchmarks.harness.zoo_networks import NETWORKS

    assert all(name == network.name for name, network in NETWORKS.items())
    assert {network.needs for network in NETWORKS.values()} == {"torch", "torchvision", "transformers", "timm"}
    known = [network.known for network in NETWORKS.values()]
    assert all(known)
    assert len(set(known)) == len(known)
    assert all(network.full is not None and network.full_example is not None for network in NETWORKS.values())


def test_a_network_is_available_where_its_library_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.harness import zoo_networks

    monkeypatch.setattr(zoo_networks, "find_spec", lambda name: None if name == "timm" else name)
    missing = {name for name, network in zoo_networks.NETWORKS.items() if not network.available}
    assert missing == {"timm-vit", "timm-efficientnet"}


def test_what_has_no_full_size_is_tiny_and_random_numbers_are_left_alone() -> None:
    from benchmarks.harness.zoo_networks import Example, Network

    def example() -> Example:
        return Example((torch.rand(2),))

    tiny = Network("one", lambda: nn.Linear(2, 2), example)
    both = Network("one", lambda: nn.Linear(2, 2), example, "known", lambda: nn.Linear(2, 3), example)
    state = torch.get_rng_state()
    shapes = [tuple(one.build(full=full)[0].weight.shape) for one in (tiny, both) for full in (False, True)]
    assert shapes == [(2, 2), (2, 2), (2, 2), (3, 2)]
    assert torch.equal(torch.get_rng_state(), state)


def test_batch_norm_has_the_statistics_of_the_example() -> None:
    from benchmarks.harness.zoo_networks import NETWORKS

    network, example = NETWORKS["u-net"].build()
    conv, norm = network.down[0][:2]
    torch.testing.assert_close(norm.running_mean, conv(example.args[0]).mean((0, 2, 3)))
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


# torch packs padded sentences so in eval, and warns of itself.
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_padding_does_not_reach_the_answer() -> None:
    from benchmarks.harness.zoo_networks import NETWORKS

    tagger, example = NETWORKS["lstm-tagger"].build()
    words, lengths = example.args
    other = words.clone()
    other[-1, lengths[-1] :] += 1
    other %= 50
    assert not torch.equal(other, words)
    with torch.no_grad():
        assert torch.equal(tagger.eval()(other, lengths), tagger(words, lengths))
        translator, example = NETWORKS["transformer"].build()
        source, target, padding = example.args
        other = torch.where(padding, (source + 1) % 50, source)
        assert not torch.equal(other, source)
        torch.testing.assert_close(translator.train(False)(other, target, padding), translator(source, target, padding))
        later = target.clone()
        later[:, -1] = (later[:, -1] + 1) % 50  # no word knows those behind it
        torch.testing.assert_close(
            translator(source, later, padding)[:, :-1], translator(source, target, padding)[:, :-1]
        )
