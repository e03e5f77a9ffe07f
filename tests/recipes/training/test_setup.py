from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from analogsim.recipes.config.options import Config
from analogsim.recipes.training.setup import check, check_evaluation, in_order, load_data, report_times, torch_device

Tiny = Callable[..., Config]


def test_times_in_order() -> None:
    assert in_order(("1d", "0s", "1h")) == ("0s", "1h", "1d")
    with pytest.raises(ValueError, match="give at least one time"):
        in_order(())
    with pytest.raises(ValueError, match="'60s' and '1min' are the same time; give each once"):
        in_order(("1min", "60s")[::-1])


def test_default_times_end_where_the_formulas_do_and_others_are_refused(tiny: Tiny) -> None:
    default = Config(device="reram-wan2022")
    assert report_times(default)[-1] == "1d"
    assert report_times(Config(device="pcm"))[-1] != "1d"
    with pytest.raises(ValueError, match="choose times within"):
        report_times(tiny("device=reram-wan2022", 'evaluation.times=["1s", "1y"]'))


def test_data_are_those_that_the_options_name(tiny: Tiny) -> None:
    one, two = load_data(tiny("data.limit=50")), load_data(tiny("data.limit=50", "seed=1"))
    assert (len(one.train), one.name) == (50, "digits")
    assert not torch.equal(one.train.tensors[0], two.train.tensors[0])


def test_where_torch_computes() -> None:
    assert torch_device("cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        assert torch_device("auto") == torch.device("cpu")
        with pytest.raises(ValueError, match='run_on: "cuda" was asked for'):
            torch_device("cuda")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("device=pmc", "did you mean 'pcm'"),
        ("noise.device=pmc", "did you mean 'pcm'"),
        ("crossbar=standart", "unknown name 'standart'"),
        ("evaluation.validation_time=never", "cannot read 'never'"),
        ("noise.shape=exponential", r"noise\.start and noise\.end > 0"),
    ],
)
def test_what_cannot_be_is_told(tiny: Tiny, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(tiny(override))


def test_a_compensation_needs_what_it_sets(tiny: Tiny) -> None:
    check_evaluation(tiny("evaluation.compensation=global+batch-norm", "model=resnet20"))
    check_evaluation(tiny("evaluation.compensation=ranges", "crossbar=standard(input_range='calibrated')"))
    with pytest.raises(ValueError, match="is for networks with batch norm, and model='mlp' has none"):
        check_evaluation(tiny("evaluation.compensation=batch-norm"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("noise.clip_start=4", "noise.clip_sigmas=none"), "noise.clip_start=4 is where the limit starts, and"),
        (('noise.times=["1y", "1s"]',), r"noise.times: must be ages above 0.*got \['1y', '1s'\]"),
        (('noise.times=["0s"]',), "noise.times: must be ages above 0"),
        (("noise.times=[]",), "noise.times: must be ages above 0"),
        (('noise.times=["1s", "10y"]', "device=reram-wan2022"), "10y|315"),
        (("noise.clip_per=row",), "noise.clip_per: wanted one of layer, column|clip_per.*layer"),
    ],
)
def test_noise_that_cannot_be_is_told(tiny: Tiny, changes: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(tiny(*changes))
    with pytest.raises(ValueError, match="leaves none to calibration"):
        check_evaluation(tiny("evaluation.compensation=ranges"))
