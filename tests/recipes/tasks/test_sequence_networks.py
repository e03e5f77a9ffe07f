import pytest
import torch

import analogsim
from analogsim.recipes.tasks.networks import make_network
from analogsim.recipes.tasks.sequence_networks import CharGPT, LSTMTagger

FACTS = {"vocabulary": 11, "shape": (8,), "outputs": 11, "classes": 3}


def test_a_character_is_told_from_those_before_it():
    model = CharGPT(11, 8)
    x = torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(0))
    later = x.clone()
    later[:, 5:] = (later[:, 5:] + 1) % 11
    before, after = model(x), model(later)
    assert before.shape == (2, 8, 11)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])
    assert model(x[:, :3]).shape == (2, 3, 11)
    with pytest.raises(ValueError, match="char-gpt: 9 characters, and its context is 8"):
        model(torch.zeros(1, 9, dtype=torch.long))


def test_a_tag_is_told_from_both_sides():
    model = LSTMTagger(11, 3)
    x = torch.zeros(1, 8, dtype=torch.long)
    for place in (0, 7):
        other = x.clone()
        other[0, place] = 4
        assert not torch.allclose(model(x)[0, 4], model(other)[0, 4])


@pytest.mark.parametrize(("name", "matrices"), [("char-gpt", 17), ("lstm-tagger", 5)])
def test_they_have_names_and_run_on_crossbars(name, matrices):
    analog = analogsim.convert(make_network(name, FACTS, seed=0), "gaussian(std=0.05)")
    assert sum(row.analog for row in analogsim.summary(analog).rows) == matrices
    x = torch.zeros(2, 8, dtype=torch.long)
    with analogsim.programmed(analog.eval(), seed=0):
        assert analog(x).shape[:2] == (2, 8)


@pytest.mark.parametrize("name", ["char-gpt", "lstm-tagger"])
def test_other_data_are_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' takes numbers of tokens"):
        make_network(name, {"shape": (1, 8, 8), "outputs": 10}, seed=0)
