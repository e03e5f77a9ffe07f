import math

import pytest
import torch

from analogsim.noise import GlobalNoise, KeyedNoise, StreamNoise

K = 5  # standard errors
N = 100_000
LIKE = torch.empty(N)


def draws(noise, kind, like=LIKE):
    return noise.normal_like(like) if kind == "normal" else noise.uniform_like(like)


@pytest.mark.parametrize("make", [lambda: GlobalNoise(), lambda: KeyedNoise("a"), lambda: StreamNoise("a")])
def test_distributions(make):
    torch.manual_seed(0)
    noise = make()
    xi, wide, u = noise.normal_like(LIKE), noise.normal_like(LIKE, 3.0), noise.uniform_like(LIKE)
    for values, std in ((xi, 1.0), (wide, 3.0)):
        assert abs(values.mean()) < K * std / math.sqrt(N)
        assert abs(values.std() - std) < K * std / math.sqrt(2 * N)
    assert abs(u.mean() - 0.5) < K * math.sqrt(1 / 12 / N)
    assert abs(u.std() - math.sqrt(1 / 12)) < K * math.sqrt(1 / 12) * math.sqrt(0.8 / N) / 2
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(torch.corrcoef(torch.stack((xi, wide)))[0, 1]) < K / math.sqrt(N), "successive calls are independent"


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize("noise", [KeyedNoise, StreamNoise])
def test_the_same_key_gives_the_same_numbers(noise, kind):
    assert torch.equal(draws(noise("0", "fc"), kind), draws(noise("0", "fc"), kind))
    assert torch.equal(draws(noise("0", "fc"), kind), draws(noise("0").fold("fc"), kind))
    used = noise("0")
    used.normal_like(LIKE)
    assert torch.equal(draws(used.fold("fc"), kind), draws(noise("0", "fc"), kind)), "a branch forgets what was drawn"


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize("noise", [KeyedNoise, StreamNoise])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "bc"), ("ab", "c")),
        (("a", "b"), ("b", "a")),
        (("a", "b"), ("a:b",)),
        (("1:a",), ("a",)),
        (("a",), ("a", "")),
        (("0", "fc"), ("1", "fc")),
        (("0", "fc1"), ("0", "fc2")),
        ((), ("",)),
    ],
    ids=str,
)
def test_other_keys_give_independent_numbers(one, other, noise, kind):
    pair = torch.stack((draws(noise(*one), kind), draws(noise(*other), kind)))
    assert abs(torch.corrcoef(pair)[0, 1]) < K / math.sqrt(N)


def test_many_chips_of_one_layer_are_independent():
    chips = torch.stack([KeyedNoise(str(seed), "fc").normal_like(torch.empty(10_000)) for seed in range(30)])
    correlation = torch.corrcoef(chips) - torch.eye(30)
    assert correlation.abs().max() < K / math.sqrt(10_000)


@pytest.mark.parametrize("noise", [KeyedNoise("a"), StreamNoise("a")])
def test_global_state_is_left_alone(noise):
    before = torch.get_rng_state()
    noise.normal_like(LIKE)
    noise.uniform_like(LIKE)
    noise.fold("b").normal_like(LIKE)
    assert torch.equal(torch.get_rng_state(), before)


def test_global_noise_is_torchs_own():
    torch.manual_seed(3)
    expected = torch.randn(N)
    torch.manual_seed(3)
    assert torch.equal(GlobalNoise().fold("any", "key").normal_like(LIKE), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_chip_is_the_same_in_every_dtype(dtype):
    like = torch.empty(1000, dtype=dtype)
    normal = KeyedNoise("a").normal_like(like)
    assert normal.dtype == dtype
    assert torch.equal(normal, KeyedNoise("a").normal_like(torch.empty(1000)).to(dtype))
    uniform = KeyedNoise("a").uniform_like(like)
    assert torch.equal(uniform, KeyedNoise("a").uniform_like(torch.empty(1000)).to(uniform.dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_uniform_numbers_never_reach_one(dtype):
    # Rounded to half precision the largest of them would, and p = 1 would not be always.
    uniform = KeyedNoise("a").uniform_like(torch.empty(N, dtype=dtype))
    assert uniform.dtype == torch.promote_types(dtype, torch.float32)
    assert uniform.max() < 1


def test_a_chip_does_not_depend_on_torchs_defaults():
    expected = KeyedNoise("a").normal_like(LIKE), KeyedNoise("a").uniform_like(LIKE)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            noise = KeyedNoise("a")
            got = noise.normal_like(LIKE), KeyedNoise("a").uniform_like(LIKE)
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("noise", [GlobalNoise(), KeyedNoise("a"), StreamNoise("a")])
def test_shapes(noise):
    for shape in ((), (0,), (1,), (3, 4), (2, 3, 4, 5)):
        like = torch.empty(shape)
        assert noise.normal_like(like).shape == shape
        assert noise.uniform_like(like).shape == shape
    strided = torch.empty(5, 4).T
    assert noise.normal_like(strided).shape == (4, 5)


def test_strides_do_not_change_a_chip():
    like = torch.empty(40, 50)
    assert torch.equal(KeyedNoise("a").normal_like(like.T.contiguous().T), KeyedNoise("a").normal_like(like))


def test_a_known_stream():
    # A chip of today must be the same chip next year: this fails if the stream behind a key changes.
    numbers = KeyedNoise("0", "fc").uniform_like(torch.empty(3)).tolist()
    assert numbers == pytest.approx([0.9462587, 0.5644927, 0.4952562], abs=1e-6)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4, 5)])
def test_numbers_lie_in_memory_as_the_tensor_does(shape: tuple[int, ...]) -> None:
    """Also for a transposed one, or channels last; into which torch itself draws slowly."""
    plain = torch.zeros(shape)
    last = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)
    for like in (plain, plain.transpose(0, 1), plain.mT, plain[..., 1:], last, plain.double().mT):
        for numbers in (GlobalNoise().normal_like(like), GlobalNoise().normal_like(like, 0.1)):
            assert (numbers.shape, numbers.dtype) == (like.shape, like.dtype)
            if like.numel() == plain.numel() or like is last:
                assert numbers.stride() == like.stride()
    torch.manual_seed(0)
    many = GlobalNoise().normal_like(torch.zeros(200, 500).mT, 0.1)
    assert abs(many.std() / 0.1 - 1) < 5 / (2 * many.numel()) ** 0.5
    assert abs(many.mean()) < 5 * 0.1 / many.numel() ** 0.5
