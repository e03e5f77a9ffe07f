import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from analogsim.noise import GlobalNoise, counter_based

K = 5  # standard errors
N = 400_000


def key(*parts: int) -> Tensor:
    return torch.tensor(parts, dtype=torch.int32)


KEYS = [key(0, 0), key(1, 0), key(0, 1), key(-(2**31), 2**31 - 1), key(123456789, -987654321)]


@pytest.mark.parametrize("k", KEYS, ids=str)
def test_numbers_follow_their_law(k: Tensor) -> None:
    """Kolmogorov and Smirnov's test of the whole law; seeds are fixed, so that a p-value below 1e-3 is a fault."""
    xi, u = counter_based.normal((N,), k).double(), counter_based.uniform((N,), k).double()
    assert stats.kstest(xi.numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-3
    for power, moment, spread in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert abs(xi.pow(power).mean() - moment) < K * math.sqrt(spread / N)
    expected = N * 2 * stats.norm.sf(4)  # the tails are there
    assert abs((xi.abs() > 4).sum() - expected) < K * math.sqrt(expected)
    assert float(u.min()) >= 0
    assert float(u.max()) < 1


@pytest.mark.parametrize("kind", [counter_based.normal, counter_based.uniform])
def test_neighbours_are_independent(kind: object) -> None:
    """Numbers at any small distance, the two halves of a pair, and numbers under keys that differ in one bit."""
    k = key(7, 11)
    values = kind((N,), k).double()  # type: ignore[operator]
    values = (values - values.mean()) / values.std()
    for distance in (1, 2, 3, 16, 100, 784, 1024, N // 2):
        count = N - distance
        assert abs((values[:count] * values[distance:]).mean()) < K / math.sqrt(count)
        assert abs((values[:count].square() * values[distance:].square()).mean() - 1) < K * 3 / math.sqrt(count)
    for bit in range(0, 32, 3):
        for half in (0, 1):
            other = k.clone()
            other[half] ^= torch.tensor(1 << bit if bit < 31 else -(2**31), dtype=torch.int32)
            others = kind((N,), other).double()  # type: ignore[operator]
            others = (others - others.mean()) / others.std()
            assert abs((values * others).mean()) < K / math.sqrt(N)
            shared = torch.isin(values[:1000], others[:1000]).sum()
            assert shared < 10, "and they are not the same numbers in another order"


def test_every_bit_of_the_mixer_is_even() -> None:
    bits = counter_based.place_bits(N, key(3, 4))
    for place in range(32):
        assert abs(((bits >> place) & 1).double().mean() - 0.5) < K * 0.5 / math.sqrt(N)
    assert len(bits.unique()) == N, "a key gives each place its own number"


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 5), (0,), (3, 1, 7)])
def test_shapes(shape: tuple[int, ...]) -> None:
    k = key(1, 2)
    for values in (counter_based.normal(shape, k), counter_based.uniform(shape, k)):
        assert values.shape == shape
        assert values.dtype == torch.float32


def test_a_key_comes_from_torchs_generator() -> None:
    keys = [counter_based.fresh_key(torch.device("cpu")) for _ in range(1000)]
    assert len({tuple(k.tolist()) for k in keys}) == 1000
    assert any(k[0] > 2**30 for k in keys)
    assert any(k[0] < -(2**30) for k in keys)
    torch.manual_seed(5)
    first = counter_based.fresh_key(torch.device("cpu"))
    torch.manual_seed(5)
    assert torch.equal(counter_based.fresh_key(torch.device("cpu")), first)


def test_too_many_places_are_refused() -> None:
    with pytest.raises(ValueError, match="places can be told apart, got 2147483649"):
        counter_based.place_bits(2**31 + 1, key(0, 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_compiled_code_draws_keys_and_eager_code_as_torch_does(dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    like = torch.empty(3, 5, dtype=dtype)

    def draw(like: Tensor) -> tuple[Tensor, Tensor]:
        return GlobalNoise().normal_like(like), GlobalNoise().uniform_like(like)

    compiled = torch.compile(draw, fullgraph=True, backend="eager")
    torch.manual_seed(1)
    xi, u = compiled(like)
    torch.manual_seed(1)
    keys = [counter_based.fresh_key(like.device) for _ in range(2)]
    assert torch.equal(xi, counter_based.normal(like.shape, keys[0]).to(dtype))
    assert torch.equal(u, counter_based.uniform(like.shape, keys[1]).to(torch.promote_types(dtype, torch.float32)))
    torch.manual_seed(1)
    assert torch.equal(GlobalNoise().normal_like(like), torch.randn(3, 5, dtype=dtype, generator=_generator(1)))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.slow
def test_machine_code_gives_the_same_numbers() -> None:
    torch._dynamo.reset()
    k = key(5, 6)
    compiled = torch.compile(
        lambda k: (counter_based.normal((1000, 7), k), counter_based.uniform((1000, 7), k)), fullgraph=True
    )
    for got, wanted in zip(
        compiled(k), (counter_based.normal((1000, 7), k), counter_based.uniform((1000, 7), k)), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
