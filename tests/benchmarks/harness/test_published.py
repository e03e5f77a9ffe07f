"""The published formulas: where each number is from, and that the closed forms are the moments of what they say."""

import ast
import math
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "benchmarks" / "harness" / "published.py"
PAGES = ROOT / "docs" / "devices"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def tree():
    return ast.parse(SOURCE.read_text(encoding="utf-8"))


def close(found, sample):
    """Whether moments are those of a sample, to five standard errors of a normal one."""
    error = sample.std() / math.sqrt(sample.size)
    assert found.mean == pytest.approx(sample.mean(), abs=5 * error)
    assert found.std == pytest.approx(sample.std(), abs=5 * error)


# Where they are from


def test_no_line_is_shared_with_the_devices():
    imports = [node for node in ast.walk(tree()) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {
        name.partition(".")[0]
        for node in imports
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert {"numpy", "scipy"} < modules
    assert modules & {"analogsim", "devices", "benchmarks", "torch"} == set()


def test_every_number_of_a_device_stands_on_its_page():
    """With more than two digits they are no halves or squares: someone measured them."""
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES.glob("*.md"))
    known = {float(number) for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?", text)}
    found = {
        node.value
        for node in ast.walk(tree())
        if isinstance(node, ast.Constant) and isinstance(node.value, float)
        if len(f"{node.value:g}".partition("e")[0].replace(".", "").strip("0")) > 2
    }
    ours = {86400.0}  # seconds of a day
    assert len(found) > 80
    assert found - known - ours == set()


def test_every_formula_is_compared_and_every_page_says_source_and_command():
    from benchmarks import physics

    formulas = {
        node.name
        for node in tree().body
        if isinstance(node, ast.FunctionDef)
        if [argument.arg for argument in node.args.args] == ["x", "t"] or ast.unparse(node.returns) == "Published"
    }
    formulas |= {
        node.targets[0].id
        for node in tree().body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "PCM"
    }
    used = set(re.findall(r"published\.(\w+)", Path(physics.__file__).read_text(encoding="utf-8")))
    assert len(formulas) >= 17
    assert formulas - used == set()
    for page in {case.page for case in physics.CASES}:
        text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
        (sources,) = re.findall(r"^Sources?: ((?:.+\n)+)", text, re.MULTILINE)
        assert re.search(r"\b(19|20)\d\d\b", sources), page
        assert f"\n    python -m benchmarks.physics --page {page} " in text


# That they are what they say


def test_moments_from_raw_ones(rng):
    from benchmarks.harness.published import Moments

    sample = rng.normal(3.0, 2.0, 1000)
    found = Moments.of(sample.mean(), (sample**2).mean())
    assert (found.mean, found.std) == pytest.approx((sample.mean(), sample.std()))
    assert Moments.of(3.0, 9.0 - 1e-15).std == 0  # rounding


@pytest.mark.parametrize(
    ("target", "sigma", "growth", "shift"), [(1.0, 2.0, 0.5, 0.0), (0.0, 1.0, 1.5, 0.5), (9.0, 1.0, 0.0, -1.0)]
)
def test_what_relaxes_stops_at_zero_twice(rng, target, sigma, growth, shift):
    from benchmarks.harness.published import relaxed

    first, second = rng.normal(size=(2, 400_000))
    programmed = np.maximum(0, target + sigma * first)
    close(relaxed(target, sigma, growth, shift), np.maximum(0, programmed + shift + growth * second))


@pytest.mark.parametrize(("mu", "s"), [(0.05, 0.02), (0.01, 0.05)])
@pytest.mark.parametrize("a", [0.0, 1.0, 16.0])
def test_decays_are_expectations(mu, s, a):
    from benchmarks.harness import published

    nu = mu + s * published.XI
    mean = (published.WEIGHT * np.exp(-a * np.abs(nu))).sum()
    assert published.folded_decay(mu, s, a) == pytest.approx(mean, rel=1e-5)
    assert published.normal_decay(mu, s, a) == pytest.approx((published.WEIGHT * np.exp(-a * nu)).sum(), rel=1e-5)


@pytest.mark.parametrize("x", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("name", ["pcm", "pcm_crosssim", "hermes_one", "hermes_two"])
def test_phase_change_memory_step_by_step(rng, name, x):
    from benchmarks.harness import published

    cell, t = getattr(published, name), 1e6
    one, two, three = rng.normal(size=(3, 400_000))
    g = np.maximum(0, x * cell.g_max + cell.sigma(x) * one)
    close(cell.moments(x, None), g)
    mu, s = cell.nu(x)
    nu = mu + s * two if name == "pcm_crosssim" else np.abs(mu + s * two)
    close(cell.exponent(x, None), nu)
    aged = g * ((t + cell.t0) / cell.t0) ** -nu
    growth = math.sqrt(math.log((t + cell.t0 + cell.t_read) / (2 * cell.t_read)))
    close(cell.moments(x, t), np.maximum(0, aged * (1 + cell.q(g / cell.g_max) * growth * three)))


@pytest.mark.parametrize("target", [9.0, 50.0, 88.2])
def test_a_cmo_cell_step_by_step(rng, target):
    from benchmarks.harness.published import cmo

    t = 3600.0
    one, two, three = rng.normal(size=(3, 400_000))
    log_t = math.log(t)
    g = target + (0.00106879 * target + 0.00081107) * one
    g += -0.08900206 * log_t + (0.04201137 * log_t + 0.41183342) * two
    std = 0.02773165 * np.log10(g.clip(9.0, 88.2)) * math.sqrt(math.log((t + 1e-6) / 2e-6))
    close(cmo(0.2)(target / 88.2, t), (g + std * three).clip(9.0, 88.2))


@pytest.mark.parametrize("law", ["constant", "proportional", "inverse"])
@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_generic_errors_step_by_step(rng, law, distribution):
    from benchmarks.harness.published import G_MAX, error

    g = 0.3 * G_MAX
    size = {"constant": 0.05 * G_MAX, "proportional": 0.05 * g, "inverse": 0.05 * G_MAX**2 / g}[law]
    draw = rng.normal(size=400_000) if distribution == "normal" else (rng.random(400_000) - 0.5) * math.sqrt(12)
    close(error(law, distribution)(0.3, None), np.maximum(0, g + size * draw))


def test_other_generic_effects_step_by_step(rng):
    from benchmarks.harness import published

    low, high, u, xi = published.G_MIN, published.G_MAX, rng.random(400_000), rng.normal(size=400_000)
    g = 0.4 * high
    close(published.stuck(0.4, None), np.where(u < 0.0904, low, np.where(u > 1 - 0.0175, high, g)))
    step = (high - low) / 15
    close(published.quantization(16)(0.4, None), low + step * np.floor((g - low) / step + u))
    target = low + (high - low) * u
    close(published.nearest(16)(0.4, None), low + step * np.round((target - low) / step) - target)
    close(published.drift(0.4, 1e4), g * ((1e4 + 20) / 20) ** -(0.05 + 0.02 * xi))
    for law, power in (("constant", 0), ("proportional", 1), ("inverse", -1)):
        both = [0.01 * high * (cell / high) ** power for cell in (g, low)]
        close(published.read_noise(law)(0.4, None), both[0] * xi - both[1] * rng.normal(size=xi.size))


def test_retention_passes_through_what_was_measured():
    from benchmarks.harness.published import DAY, sonos, wan

    far = 0.5  # from zero, so that nothing is clipped
    for t, coefficients in ((0.0, (19.887, 176.31)), (DAY, (25.591, 186.86)), (5 * DAY, (34.579, 207.34))):
        scale, width = coefficients
        assert sonos(far, t).std == pytest.approx(scale * (1 - math.exp(-800 / width)), rel=1e-4)
    for t, c in (
        (1.0, (0.348, 16.030, -43.853, 45.393, -16.815)),
        (2 * DAY, (0.782, 20.274, -43.507, 37.062, -11.934)),
    ):
        assert wan(far, t).std == pytest.approx(sum(value * far**n for n, value in enumerate(c)), rel=1e-4)
    assert wan(far, None) == wan(far, 0.5) == wan(far, 1.0)
