import pytest
import torch

from analogsim.utils.batches import answer, call
from benchmarks.harness.judged_networks import NETWORKS, at, loader, trained


def test_samples_of_inputs_of_any_structure():
    x = torch.arange(6)
    index = torch.tensor([1, 4])
    for value in (x, (x, x), {"a": x}):
        found = at(value, index)
        first = (
            found
            if isinstance(found, torch.Tensor)
            else next(iter(found.values() if isinstance(found, dict) else found))
        )
        assert first.tolist() == [1, 4]
    assert [len(target) for _, target in loader(((x, x), x), 4)] == [4, 2]


@pytest.mark.parametrize("name", ["autoencoder", "bert", "convnext", "forecast", "gpt", "mixer", "siamese", "unet"])
def test_networks_answer_to_their_data(name):
    """Untrained: shapes fit, nothing of the test data is in the training data by place."""
    case = trained(name, epochs=0)
    assert len(case.train[1]) > len(case.test[1]) > 100
    inputs, target = loader(case.test, 3)[0]
    score = case.metric.begin(torch.device("cpu"))
    with torch.no_grad():
        case.metric.add(score, answer(call(case.model, inputs)), target)
    assert case.metric.result(score) >= 0


def test_all_kinds_are_there():
    assert len(NETWORKS) >= 15
