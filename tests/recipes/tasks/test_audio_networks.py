import numpy as np
import pytest
import torch

import analogsim
from analogsim.recipes.tasks.audio_networks import audio_cnn, audio_gru
from analogsim.recipes.tasks.networks import make_network


@pytest.mark.parametrize("shape", [(1, 40, 64), (1, 8, 8), (2, 21, 33)])
def test_the_convolutional_one(shape):
    model = audio_cnn(shape, 7)
    assert model(torch.randn(3, *shape)).shape == (3, 7)
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    assert names == ["conv1", "conv2", "conv3", "fc"]


def test_the_recurrent_one_takes_images_and_sequences_alike():
    image, sequence = audio_gru((1, 40, 64), 7), audio_gru((64, 40), 7)
    sequence.load_state_dict(image.state_dict())
    x = torch.randn(3, 1, 40, 64)
    expected = image(x)
    assert expected.shape == (3, 7)
    assert torch.equal(sequence(x[:, 0].transpose(1, 2)), expected)
    assert not torch.allclose(image(x.flip(3)), expected)  # the order of frames counts


@pytest.mark.parametrize("make", [audio_cnn, audio_gru])
def test_every_matrix_runs_on_crossbars(make):
    analog = analogsim.convert(make((1, 16, 16), 3), "gaussian(std=0)")
    x = torch.randn(2, 1, 16, 16)
    with analogsim.programmed(analog.eval(), seed=0):
        answer = analog(x)
    assert answer.shape == (2, 3)


@pytest.mark.parametrize("shape", [(40, 64), (1, 7, 64), (1, 64, 7), (1, 2, 3, 4)])
def test_shapes_the_convolutional_one_refuses(shape):
    with pytest.raises(ValueError, match="audio-cnn takes"):
        audio_cnn(shape, 3)


@pytest.mark.parametrize("shape", [(40,), (2, 40, 64), (1, 2, 3, 4)])
def test_shapes_the_recurrent_one_refuses(shape):
    with pytest.raises(ValueError, match="audio-gru takes"):
        audio_gru(shape, 3)


@pytest.mark.parametrize(
    ("name", "shape"), [("audio-cnn", (1, 16, 16)), ("audio-gru", (1, 16, 16)), ("audio-gru", (9, 16))]
)
def test_they_go_by_name(name, shape):
    first, again, other = (make_network(name, {"shape": shape, "outputs": 3}, seed=seed) for seed in (0, 0, 1))
    assert first(torch.randn(2, *shape)).shape == (2, 3)
    assert torch.equal(first.fc.weight, again.fc.weight)
    assert not torch.equal(first.fc.weight, other.fc.weight)
    with pytest.raises(ValueError, match="did you mean"):
        make_network(name + "s", {"shape": (1, 16, 16), "outputs": 3}, seed=0)
    with pytest.raises(ValueError, match="shape None"):
        make_network(name, {"outputs": 3}, seed=0)


@pytest.mark.slow
def test_most_of_what_the_convolutional_one_loses_is_its_batch_norm():
    generator = torch.Generator().manual_seed(0)
    tones = torch.randn(4, 1, 16, 16, generator=generator)
    labels = torch.arange(128) % 4
    x = tones[labels] + torch.randn(128, 1, 16, 16, generator=generator)
    torch.manual_seed(0)
    model = audio_cnn((1, 16, 16), 4)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):  # running statistics are then those of the network that was trained
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()
    analog = analogsim.convert(model.eval(), "pcm")
    with torch.no_grad():
        data = [(x, model(x))]
    errors = [
        analogsim.evaluate(
            analog,
            data,
            chips=6,
            times=["1y"],
            metric="mean_squared_error",
            compensation=compensation,
            calibration=data,
        ).values[:, 0]
        for compensation in ("global", "global+batch-norm")
    ]
    left = np.log(errors[1] / errors[0])  # chip by chip
    assert left.mean() < np.log(0.5)
    assert left.mean() + 4 * left.std(ddof=1) / 6**0.5 < 0
