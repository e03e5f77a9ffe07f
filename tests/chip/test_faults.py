"""Known faults: drawn as a test of a chip finds them, written around, and laid around."""

import itertools
import math

import pytest
import torch
from torch import nn

import analogsim
from analogsim import Crossbar, DeviceModel, Drift, Effect, Mapping, StuckAt


class Nothing(Effect):
    """An effect without an effect."""


PAIR = DeviceModel((Nothing(),), g_min=1.0, g_max=21.0)


def written(device, weight, faults):
    """The weight that a layer has on faulty cells."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data.copy_(weight)
    analog = analogsim.convert(layer, device)
    analogsim.program(analog, faults={"": faults})
    return analogsim.to_digital(analog, "programmed").weight.detach()


@pytest.mark.parametrize("cells", ["pair", "two-sided"])
def test_the_partner_of_a_stuck_cell_takes_over(cells):
    weight = torch.tensor([[1.0, 0.5, -0.5, -1.0, 0.0]])
    device = PAIR.replace(mapping=Mapping(cells, "tensor"))
    none, off, on = torch.zeros(1, 5), torch.ones(1, 5), torch.full((1, 5), 2)

    def seen(positive, negative):
        return written(device, weight, torch.stack((positive, negative))).flatten().tolist()

    assert seen(none, none) == pytest.approx([1, 0.5, -0.5, -1, 0])
    assert seen(off, none) == pytest.approx([0, 0, -0.5, -1, 0], abs=1e-6)
    assert seen(on, none) == pytest.approx([1, 0.5, 0, 0, 0], abs=1e-6)
    assert seen(none, off) == pytest.approx([1, 0.5, 0, 0, 0], abs=1e-6)
    assert seen(none, on) == pytest.approx([0, 0, -0.5, -1, 0], abs=1e-6)
    assert seen(on, on) == pytest.approx([0] * 5, abs=1e-6)
    assert seen(on, off) == pytest.approx([1] * 5)


@pytest.mark.parametrize("mapping", [Mapping("offset"), Mapping("pair", slices=2)], ids=str)
def test_other_mappings_keep_their_targets(mapping):
    torch.manual_seed(0)
    layer = nn.Linear(5, 4, bias=False)
    analog = analogsim.convert(layer, PAIR.replace(mapping=mapping))
    faults = analogsim.draw_faults(analog, "stuck-at(p_off=0.2, p_on=0.1)")
    analogsim.program(analog)
    healthy = analog.analog.chip.written.programmed.clone()
    analogsim.program(analog, faults=faults)
    g, stuck = analog.analog.chip.written.programmed, faults[""]
    assert torch.equal(g[stuck == 0], healthy[stuck == 0])
    assert (g[stuck == 1] == 1).all()
    assert (g[stuck == 2] == 21).all()


def test_copies_take_up_what_stuck_ones_cannot():
    torch.manual_seed(0)
    layer = nn.Linear(40, 30, bias=False)
    stuck = "stuck-at(p_off=0.1, p_on=0.1)"
    copied = PAIR.replace(mapping=Mapping("pair", copies=4))
    known, unknown = analogsim.convert(layer, copied), analogsim.convert(layer, [copied, stuck])
    errors = []
    for analog, faults in ((known, analogsim.draw_faults(known, stuck)), (unknown, None)):
        analogsim.program(analog, faults=faults)
        analogsim.drift(analog, 0, compensation=None)
        error = analogsim.to_digital(analog, "programmed").weight - layer.weight
        errors.append(float(error.detach().square().mean().sqrt() / layer.weight.detach().abs().max()))
    # The largest weights have nothing in reserve; the others, and every zero, are as they should be.
    assert errors[0] < 0.75 * errors[1]


def test_faults_are_drawn_as_the_effect_says():
    """Shares within 5 standard errors; the same chip has the same ones, and no other draws change."""
    analog = analogsim.convert(nn.Sequential(nn.Linear(300, 200), nn.Conv1d(4, 6, 3)), PAIR)
    faults = analogsim.draw_faults(analog, StuckAt(p_off=0.09, p_on=0.02), seed=3)
    assert list(faults) == ["0", "1"]
    assert faults["1"].shape == (2, 6, 4, 3)
    for code, share in ((1, 0.09), (2, 0.02)):
        count = faults["0"].numel()
        assert float((faults["0"] == code).float().mean()) == pytest.approx(share, abs=5 * (share / count) ** 0.5)
    again = analogsim.draw_faults(analog, StuckAt(p_off=0.09, p_on=0.02), seed=3)
    assert all(torch.equal(faults[name], again[name]) for name in faults)
    assert not torch.equal(faults["0"], analogsim.draw_faults(analog, StuckAt(p_off=0.09, p_on=0.02), seed=4)["0"])
    rows = analogsim.draw_faults(analog, "stuck-at(p_off=0.3, p_on=0.0, cluster='row')")["0"]
    assert torch.equal(rows, rows[:1, :1].expand_as(rows))
    with pytest.raises(ValueError, match="'Drift' makes no cell stick"):
        analogsim.draw_faults(analog, Drift())
    with pytest.raises(ValueError, match="has no cells; its device acts on weights"):
        analogsim.draw_faults(analogsim.convert(nn.Linear(3, 2), "gaussian"))


def error(analog, faults):
    layers = {layer.analog.name: layer for layer in analog.modules() if isinstance(layer, analogsim.AnalogLayer)}
    analogsim.program(analog, faults=faults)
    total = 0.0
    for layer in layers.values():
        weight = layer.analog.chip.weight_for(layer.weight, layer.bias)[0]
        total += float((weight - layer.analog.layout.lay(layer.weight, layer.bias)).detach().square().sum())
    return total


def test_columns_are_assigned_as_well_as_can_be():
    """Against all permutations, the slow obvious way."""
    torch.manual_seed(0)
    analog = analogsim.convert(nn.Linear(6, 5, bias=False), PAIR)
    faults = analogsim.draw_faults(analog, "stuck-at(p_off=0.2, p_on=0.2)", seed=1)
    ours = error(analog, analogsim.remap(analog, faults, rows=False))
    every = [error(analog, {"": faults[""][:, list(order)]}) for order in itertools.permutations(range(5))]
    assert ours == pytest.approx(min(every), rel=1e-5)
    assert ours < error(analog, faults)
    by_rows = error(analog, analogsim.remap(analog, faults, columns=False))
    every = [error(analog, {"": faults[""][:, :, list(order)]}) for order in itertools.permutations(range(6))]
    assert by_rows == pytest.approx(min(every), rel=1e-5)
    assert error(analog, analogsim.remap(analog, faults)) <= ours


@pytest.mark.parametrize(
    "mapping", [Mapping(), Mapping("two-sided", slices=2, slice_bits=2), Mapping(copies=2)], ids=str
)
def test_signs_are_turned_as_well_as_can_be(mapping):
    """Against all permutations and signs, the slow obvious way."""
    torch.manual_seed(0)
    analog = analogsim.convert(nn.Linear(5, 3, bias=False), PAIR.replace(mapping=mapping))
    faults = analogsim.draw_faults(analog, "stuck-at(p_off=0.2, p_on=0.2)", seed=1)
    known = faults[""]
    both = torch.stack((known, known.roll(len(known) // 2, 0)))  # what lay on G+ lies on G-

    def turned(signs, order=(0, 1, 2)):
        return {"": torch.stack([both[sign, :, line] for sign, line in zip(signs, order, strict=True)], 1)}

    signs = list(itertools.product((0, 1), repeat=3))
    alone = error(analog, analogsim.remap(analog, faults, rows=False, columns=False, signs=True))
    assert alone == pytest.approx(min(error(analog, turned(each)) for each in signs), rel=1e-5)
    ours = error(analog, analogsim.remap(analog, faults, rows=False, signs=True))
    every = [error(analog, turned(each, order)) for each in signs for order in itertools.permutations(range(3))]
    assert ours == pytest.approx(min(every), rel=1e-5)
    assert ours < error(analog, analogsim.remap(analog, faults, rows=False))


def test_a_turned_sign_is_a_weight_written_with_the_other_one():
    """The map as the weights meet it, and a chip on which negated weights lie, negated digitally."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, bias=False)
    analog = analogsim.convert(layer, PAIR)
    faults = analogsim.draw_faults(analog, "stuck-at(p_off=0.3, p_on=0.1)", seed=0)
    laid = analogsim.remap(analog, faults, rows=False, columns=False, signs=True)
    flipped = (laid[""] != faults[""]).flatten(2).any(2).any(0)
    assert flipped.any()
    signs = 1.0 - 2.0 * flipped
    seen = written(PAIR, layer.weight.detach() * signs.unsqueeze(1), faults[""]) * signs.unsqueeze(1)
    torch.testing.assert_close(written(PAIR, layer.weight.detach(), laid[""]), seen)


def test_offset_cells_keep_their_signs():
    torch.manual_seed(0)
    analog = analogsim.convert(nn.Linear(6, 4), PAIR.replace(mapping=Mapping("offset")))
    faults = analogsim.draw_faults(analog, "stuck-at(p_off=0.3, p_on=0.1)", seed=0)
    plain, signed = (analogsim.remap(analog, faults, signs=signs) for signs in (False, True))
    assert torch.equal(plain[""], signed[""])


@pytest.mark.parametrize("mapping", [Mapping(), Mapping("offset", bias_rows=1)], ids=["pair", "offset"])
def test_lines_stay_within_their_crossbar_and_groups(mapping):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(24, 10))
    crossbar = Crossbar(rows=8, cols=8)
    analog = analogsim.convert(model, PAIR.replace(mapping=mapping), crossbar=crossbar)
    faults = analogsim.draw_faults(analog, "stuck-at(p_off=0.1, p_on=0.1)", seed=2)
    kept = {name: value.clone() for name, value in faults.items()}
    laid = analogsim.remap(analog, faults)
    assert error(analog, laid) < error(analog, faults)
    for name, layer in (("0", analog[0]), ("2", analog[2])):
        assert torch.equal(faults[name], kept[name])
        before, after = (value[name].flatten(2) for value in (faults, laid))
        layout = layer.analog.layout
        for left, right in layout.cols:
            for top, bottom in layout.rows:
                parts = [value[:, left:right, top:bottom] for value in (before, after)]
                if name == "0":  # groups keep their rows
                    assert parts[0].sum((0, 1)).equal(parts[1].sum((0, 1)))
        for top, bottom in layout.rows:
            assert before[:, :, top:bottom].sum() == after[:, :, top:bottom].sum()
        out = layout.cols[-1][1]
        if mapping.cells == "offset" and name == "0":
            assert torch.equal(before[:, out:], after[:, out:]), "reference columns stay"


def test_what_is_known_of_a_chip_helps_it():
    """Accuracy with faults that nobody knows of, with cells written around them, and with lines exchanged."""
    torch.manual_seed(0)
    x = torch.randn(500, 16)
    y = (x[:, :8].sum(1) > x[:, 8:].sum(1)).long()
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    kind, data = StuckAt(p_off=0.15, p_on=0.1), [(x, y)]
    unknown = analogsim.evaluate(analogsim.convert(model, kind), data, chips=6, times=(0,))
    analog = analogsim.convert(model, PAIR.replace(g_min=0.0))
    around, laid = (
        analogsim.evaluate(analog, data, chips=6, times=(0,), faults=known)
        for known in (
            lambda seed: analogsim.draw_faults(analog, kind, seed),
            lambda seed: analogsim.remap(analog, analogsim.draw_faults(analog, kind, seed)),
        )
    )
    assert unknown.mean[0] + 0.02 < around.mean[0]
    assert around.mean[0] < laid.mean[0]
    with analogsim.programmed(analog, 2, faults=analogsim.draw_faults(analog, kind, 2)):
        assert float((analog(x).argmax(1) == y).float().mean()) == pytest.approx(around.values[2, 0])


def test_what_remap_refuses():
    analog = analogsim.convert(nn.Linear(3, 2), PAIR)
    with pytest.raises(ValueError, match="remap: faults of 'fc', which is no analog layer"):
        analogsim.remap(analog, {"fc": torch.zeros(2, 2, 3)})
    with pytest.raises(ValueError, match=r"must be a tensor \(2, 2, 3\)"):
        analogsim.remap(analog, {"": torch.zeros(2, 3)})


# Maps of conductances


def test_the_partner_of_a_stuck_cell_knows_where_it_is_stuck():
    """A short of 31 µS in a range from 1 to 21: the partner makes up for what its range allows."""
    layer = nn.Linear(5, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, 0.5, 0.0, -0.5, -1.0]])
    analog = analogsim.convert(layer, PAIR)
    for side, at in ((0, 31.0), (0, 11.0), (1, 0.0), (1, 40.0)):
        faults = torch.full((2, 1, 5), torch.nan)
        faults[side] = at
        analogsim.program(analog, faults={"": faults})
        g = analog.analog.chip.written.programmed
        assert (g[side] == at).all()
        target = torch.tensor([1.0, 0.5, 0.0, -0.5, -1.0]) * 20
        other = ((at - target) if side == 0 else (at + target)).clamp(1, 21)
        torch.testing.assert_close(g[1 - side, 0], other)


def test_a_map_of_conductances_is_drawn_where_cells_are_stuck_elsewhere(tmp_path):
    torch.manual_seed(0)
    analog = analogsim.convert(nn.Sequential(nn.Linear(60, 40)), PAIR)
    text = "stuck-at(p_off=0.1, off=0, p_on=0.05, on=100, on_spread=0.3)"
    faults = analogsim.draw_faults(analog, text, seed=1)["0"]
    codes = analogsim.draw_faults(analog, "stuck-at(p_off=0.1, p_on=0.05)", seed=1)["0"]
    assert faults.is_floating_point()
    assert codes.dtype == torch.int8
    assert torch.equal(faults.isnan(), codes == 0)
    assert (faults[codes == 1] == 0).all()
    assert faults[codes == 2].log().mean() == pytest.approx(math.log(100), abs=5 * 0.3 / int((codes == 2).sum()) ** 0.5)
    plain = error(analog, {"0": faults})
    remapped = analogsim.remap(analog, {"0": faults})
    assert error(analog, remapped) < plain, "remap sees where cells are stuck"
    torch.testing.assert_close(remapped["0"].nan_to_num().sum(), faults.nan_to_num().sum())
    x = torch.randn(3, 60)
    answer = analog.eval()(x)
    analogsim.save_chip(analog, tmp_path / "chip.safetensors")
    analogsim.erase(analog)
    analogsim.load_chip(analog, tmp_path / "chip.safetensors")
    assert torch.equal(analog.eval()(x), answer)
    follows = analog[0].analog.device.following(analog[0].weight, analog[0].analog.chip.written)
    assert 0 < float((follows == 0).float().mean()) < 0.3


def test_a_map_of_conductances_is_checked():
    analog = analogsim.convert(nn.Linear(2, 1), PAIR)
    for value in (-1.0, math.inf):
        faults = torch.full((2, 1, 2), torch.nan)
        faults[0, 0, 0] = value
        with pytest.raises(ValueError, match="conductances of stuck cells and NaN for those that work"):
            analogsim.program(analog, faults={"": faults})
    analogsim.program(analog, faults={"": torch.full((2, 1, 2), torch.nan)})
    assert torch.equal(analog.analog.chip.written.programmed, analog.analog.chip.written.cells.target)
    analogsim.program(analog, faults={"": torch.tensor([[[0.0, 1.0]], [[2.0, 0.0]]])})
    assert analog.analog.chip.written.faults.dtype == torch.int8, "codes may be floating numbers, as before"


@pytest.mark.parametrize("at", [0.0, 2.0, 7.5])
def test_a_layer_without_a_working_cell_is_told_by_conductances_too(at):
    torch.manual_seed(0)
    analog = analogsim.convert(nn.Linear(6, 4), "reram-cmo")  # g_min is 9 µS: an open is no code
    faults = analogsim.draw_faults(analog, f"stuck-at(p_off=1, p_on=0, off={at})")
    for known in (faults, analogsim.remap(analog, faults)):
        analogsim.program(analog, faults=known)
        written = analog.analog.chip.written
        torch.testing.assert_close(written.programmed, torch.full_like(written.programmed, at))
