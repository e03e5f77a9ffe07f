"""The quick start of Lightning's documentation, an autoencoder of images, with twins in the place of its networks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim

pytestmark = [
    pytest.mark.slow,  # lightning alone takes seconds to import
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning",
        "ignore::FutureWarning",
        "ignore:The .*dataloader.* does not have many workers",
        "ignore:You defined a `validation_step` but have no `val_dataloader`",
    ),
]


@pytest.fixture
def lightning() -> Any:
    return pytest.importorskip("lightning", reason='needs pip install "analogsim-torch[frameworks]"')


@pytest.fixture
def autoencoder(lightning: Any) -> Any:
    """The module of the quick start; ``twin`` is what is done to its two networks."""

    class LitAutoEncoder(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, twin: Any) -> None:
            super().__init__()
            self.encoder = twin(nn.Sequential(nn.Linear(8 * 8, 32), nn.ReLU(), nn.Linear(32, 8)))
            self.decoder = twin(nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8 * 8)))
            self.seen: list[Tensor] = []

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, _ = batch
            x = x.view(x.size(0), -1)
            loss = nn.functional.mse_loss(self.decoder(self.encoder(x)), x)
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            x, _ = batch
            x = x.view(x.size(0), -1)
            found = self.decoder(self.encoder(x))
            self.seen.append(found)
            self.log("val_loss", nn.functional.mse_loss(found, x))

        test_step = validation_step

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    return LitAutoEncoder


def loader() -> Any:
    torch.manual_seed(0)
    return torch.utils.data.DataLoader([(torch.rand(1, 8, 8), 0) for _ in range(64)], batch_size=16)


def trainer(lightning: Any, callback: Any, folder: Path, **options: Any) -> Any:
    settings = {"max_epochs": 3, "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings |= {"accelerator": "cpu", "devices": 1, "enable_checkpointing": False, "num_sanity_val_steps": 1}
    return lightning.Trainer(callbacks=[callback], default_root_dir=folder, **{**settings, **options})


def test_the_quick_start(lightning: Any, autoencoder: Any, tmp_path: Path) -> None:
    from analogsim.integrations.lightning import HardwareCallback

    lightning.seed_everything(0, verbose=False)
    module = autoencoder(lambda network: analogsim.convert(network, "pcm"))
    callback = HardwareCallback(noise={"end": 1.0}, clip={"start": 3.0, "end": 2.0}, time="1y", seed=7)
    fitting = trainer(lightning, callback, tmp_path)
    fitting.fit(module, loader(), loader())
    assert fitting.callback_metrics["noise_scale"] == 1.0
    assert {name: state["last_step"] for name, state in callback.state_dict().items()} == {"noise": 12, "clip": 12}
    # What it validated on last is the chip of that seed and age, with the weights that training ended with.
    x = torch.stack([image for image, _ in loader().dataset][-16:]).flatten(1)
    for network in (module.encoder, module.decoder):
        analogsim.program(network, 7)
        analogsim.drift(network, "1y")
    with torch.no_grad():
        torch.testing.assert_close(module.eval().decoder(module.encoder(x)), module.seen[-1])
    # By hand: the chip that is there answers, and stays.
    (told,) = trainer(lightning, HardwareCallback(seed=1), tmp_path).test(module, loader(), verbose=False)
    assert torch.equal(module.seen[-1], module.decoder(module.encoder(x)))
    for network in (module.encoder, module.decoder):
        analogsim.erase(network)
    (other,) = trainer(lightning, HardwareCallback(seed=1), tmp_path).test(module, loader(), verbose=False)
    assert told["val_loss"] != other["val_loss"]
    with pytest.raises(analogsim.NotProgrammedError):
        module.eval().encoder(x)


def test_one_step_for_several_batches_and_a_digital_module(lightning: Any, autoencoder: Any, tmp_path: Path) -> None:
    from analogsim.integrations.lightning import HardwareCallback

    callback = HardwareCallback()
    module = autoencoder(lambda network: analogsim.convert(network, "pcm"))
    trainer(lightning, callback, tmp_path, accumulate_grad_batches=2).fit(module, loader())
    assert callback.state_dict()["noise"]["last_step"] == 6
    with pytest.raises(ValueError, match="no analog layer"):
        trainer(lightning, HardwareCallback(), tmp_path).fit(autoencoder(lambda network: network), loader())
    endless = trainer(lightning, HardwareCallback(), tmp_path, max_epochs=-1)
    with pytest.raises(ValueError, match="does not know how many steps"):
        endless.fit(module, loader())


def learning(network: nn.Module) -> nn.Module:
    torch.manual_seed(2)
    twin = analogsim.convert(network, "pcm", crossbar="standard(input_range='learned')")
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Linear))
    analogsim.calibrate(twin, torch.rand(32, first.in_features))
    return twin


# Lightning warns even where the same callbacks are there, and where a training goes on in its own folder.
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`", "ignore:Checkpoint directory .* exists")
def test_learned_ranges_train_and_go_with_the_checkpoint(lightning: Any, autoencoder: Any, tmp_path: Path) -> None:
    from analogsim.integrations.lightning import HardwareCallback

    class WithRanges(autoencoder):  # type: ignore[misc]
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam([*self.parameters(), *analogsim.range_parameters(self)], lr=1e-2)

    with pytest.warns(UserWarning, match="4 of 4 input ranges .* configure_optimizers"):
        trainer(lightning, HardwareCallback(), tmp_path, max_epochs=1).fit(autoencoder(learning), loader())
    lightning.seed_everything(0, verbose=False)
    module = WithRanges(learning)
    before = [held.detach().clone() for held in analogsim.range_parameters(module)]
    fitting = trainer(lightning, HardwareCallback(), tmp_path, enable_checkpointing=True)
    fitting.fit(module, loader(), loader())
    learned = [held.detach().clone() for held in analogsim.range_parameters(module)]
    assert not any(map(torch.equal, learned, before))
    (kept,) = tmp_path.rglob("*.ckpt")
    # Another process: a test with these weights has these ranges, and a training goes on from them.
    again = WithRanges(learning)
    (told,) = trainer(lightning, HardwareCallback(seed=1), tmp_path).test(
        again, loader(), ckpt_path=kept, verbose=False
    )
    assert all(map(torch.equal, learned, analogsim.range_parameters(again)))
    (as_it_was,) = trainer(lightning, HardwareCallback(seed=1), tmp_path).test(module, loader(), verbose=False)
    assert told == as_it_was
    again = WithRanges(learning)
    trainer(lightning, HardwareCallback(), tmp_path, enable_checkpointing=True).fit(again, loader(), ckpt_path=kept)
    assert all(map(torch.equal, learned, analogsim.range_parameters(again)))


def test_without_lightning_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['lightning'] = None; import analogsim.integrations.lightning"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingPackageError: analogsim.integrations.lightning needs lightning" in done.stderr
    assert 'pip install "analogsim-torch[frameworks]"' in done.stderr
