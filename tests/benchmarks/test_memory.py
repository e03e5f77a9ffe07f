"""What is kept for backward: exact bytes where they are known, and what noise may cost."""

import json

import pytest
import torch

CPU = torch.device("cpu")


# float32: the batch for the first weight's gradient; what leaves the ReLU, for its own and for the second weight's;
# the logarithms of the softmax; the labels (int64) and the sum of their weights
PLAIN = 4 * (4 * 5) + 4 * (4 * 7) + 4 * (4 * 10) + 8 * 4 + 4
NOISY = 4 * (10 * 7)  # the second layer's; nobody needs the first layer's, whose input takes no gradient
WEIGHTS = 4 * (5 * 7 + 7 * 10)


def test_bytes_of_a_known_network(tiny, monkeypatch):
    from benchmarks import memory
    from benchmarks.harness import peer_methods

    monkeypatch.setattr(peer_methods, "available", lambda: False)
    printed = []
    torch.manual_seed(0)
    rows = {row["method"]: row for row in memory.run(tiny, CPU, say=printed.append)}
    names = ["plain", "hand-written, relative", "convert, gaussian", "convert, 8 bits"]
    assert list(rows) == [*names, "convert, gaussian, recompute", "convert, 8 bits, recompute", "convert, pcm"]
    assert rows["convert, gaussian, recompute"]["bytes"] == PLAIN
    assert rows["plain"]["bytes"] == PLAIN
    for method in ("hand-written, relative", "convert, gaussian", "convert, pcm"):
        assert rows[method]["bytes"] == PLAIN + NOISY
        assert rows[method]["to_plain"] == pytest.approx((PLAIN + NOISY) / PLAIN)
        assert rows[method]["copies_of_the_weights_over_plain"] == pytest.approx(NOISY / WEIGHTS)
    assert rows["convert, 8 bits"]["bytes"] > PLAIN + NOISY
    assert PLAIN < rows["convert, 8 bits, recompute"]["bytes"] < rows["convert, 8 bits"]["bytes"] - NOISY
    assert "convert, gaussian" in "".join(printed)


def test_a_shared_storage_counts_once_and_whole():
    from benchmarks.memory import kept

    x = torch.randn(6, 4, requires_grad=True)
    y = torch.randn(6, 4)

    def step():
        ((x[:3] * y[:3]).sum() + (x[3:] * y[3:]).sum() + (x[0] * y[0]).sum()).backward()

    assert kept(step, [x]) == 6 * 4 * 4
    assert kept(step, [x, y]) == 0


def test_what_is_released_before_backward_does_not_count():
    from benchmarks.memory import kept

    x = torch.randn(6, requires_grad=True)

    def step():
        large = x.repeat(100).exp()  # its graph goes with it
        del large
        x.exp().sum().backward()

    assert kept(step) == 6 * 4


def test_what_a_function_saves_counts():
    from benchmarks.memory import kept

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x.double())
            return x**2

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return 2 * grad * x.float()

    x = torch.randn(6, requires_grad=True)
    assert kept(lambda: Square.apply(x).sum().backward()) == 6 * 8
    assert torch.equal(x.grad, 2 * x)


def test_a_step_without_backward_is_refused():
    from benchmarks.memory import kept

    x = torch.randn(6, requires_grad=True)
    with pytest.raises(ValueError, match="used nothing that was saved"):
        kept(lambda: x.exp().sum())


@pytest.mark.parametrize("name", ["mlp", "lenet5"])
def test_noise_keeps_one_copy_of_the_weights_at_most(name, tmp_path, capsys):
    from benchmarks.__main__ import main

    file = tmp_path / "memory.json"
    assert main(["memory", "--models", name, "--json", str(file)]) == 0
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document["settings"] == {}
    rows = {row["method"]: row for row in document["results"]}
    assert all(row["benchmark"] == "memory" and row["model"] == name for row in rows.values())
    for method in ("hand-written, relative", "convert, gaussian", "convert, pcm"):
        assert 0 < rows[method]["copies_of_the_weights_over_plain"] <= 1
    printed = capsys.readouterr().out
    assert all(method in printed for method in rows)
