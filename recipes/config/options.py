"""What ``analogsim train`` and ``analogsim tune`` can be told: the sections of their configuration files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from analogsim.errors import InvalidValueError
from analogsim.recipes.config.space import DEFAULT_SPACE, Space
from analogsim.recipes.config.toml import option, section
from analogsim.training.clipping import Per
from analogsim.utils.times import DEFAULT_TIMES

PER: tuple[str, ...] = get_args(Per)


@dataclass(frozen=True)
class DataOptions:
    """Which data, from where."""

    name: str = option(
        "digits",
        "digits, mnist, fashion-mnist or cifar10; folder:PATH, npz:FILE, audio:PATH, text:FILE; file.py:factory",
    )
    folder: str | None = option(None, "where the files lie; default: data/<name>, and where systems put them")
    download: bool = option(False, "fetch missing files from the internet")
    batch_size: int = option(32, "samples per step", ge=1)
    validation: float = option(0.1, "share of the training samples that the per-epoch metrics use", gt=0, lt=1)
    limit: int | None = option(None, "use only so many samples of each part, for quick tries", ge=1)


@dataclass(frozen=True)
class OptimizationOptions:
    """How the weights are learned."""

    epochs: int = option(30, "passes over the training data; 0 puts weights on chips as they are", ge=0)
    optimizer: str = option("adam", "the optimizer", choices=("adam", "adamw", "sgd"))
    lr: float = option(3e-3, "learning rate at the start; it falls to 0 along a cosine", gt=0)
    weight_decay: float = option(0.0, "of the optimizer", ge=0)


@dataclass(frozen=True)
class NoiseOptions:
    """What the hardware-aware network sees in training."""

    device: str | None = option(None, "device model of the training noise; default: the one it will run on")
    shape: str = option(
        "linear",
        "how the noise scale moves from start to end",
        choices=("constant", "linear", "cosine", "exponential", "step"),
    )
    start: float = option(0.0, "noise scale at the first step; 1 is the device's own noise", ge=0)
    end: float = option(1.0, "noise scale after the ramp", ge=0)
    ramp: float = option(0.5, "length of the ramp", gt=0, le=1, unit="share of all steps")
    warmup: float = option(0.0, "linear start from no noise", ge=0, le=1, unit="share of all steps")
    begin: float = option(
        0.0,
        "plain steps, as fast as digital ones, before the network sees the hardware",
        ge=0,
        lt=1,
        unit="share of all steps",
    )
    jitter: float = option(0.0, "random factor on each step's scale", ge=0, le=1)
    clip_sigmas: float | None = option(2.5, "clip weights to so many of their standard deviations", gt=0)
    clip_start: float | None = option(
        None, "limit at the first step, from which it moves to clip_sigmas along the ramp; default: no move", gt=0
    )
    clip_per: str = option("layer", "what shares a limit: the weights of a layer, or of each output", choices=PER)
    times: tuple[str, ...] | None = option(
        None,
        "ages that training draws, two for a range, log-uniform, as [1s, 10y]; default: one second to one year",
        time=True,
    )


@dataclass(frozen=True)
class TrainingOptions:
    """How the hardware-aware network comes by its gradients."""

    step: str = option(
        "one-draw",
        'one-draw; "several-draws(count=2, of=\'mean\')", of mean, worst or cvar; "sharpness-aware(radius=1.0)"',
    )


@dataclass(frozen=True)
class EvaluationOptions:
    """How the networks are judged."""

    chips: int = option(25, "chips of the final evaluation, unless evaluation.precision says how many it takes", ge=1)
    precision: float | None = option(
        None,
        "judge chips until half the 95 % interval of their mean is no wider, at every time, such as 0.001: 0.1 points",
        gt=0,
    )
    most_chips: int = option(10_000, "chips that evaluation.precision may take", ge=16)
    samples_per_chip: int | str | None = option(
        None, "test samples that each chip is asked; auto: as many as it is worth; default: all", ge=1
    )
    times: tuple[str, ...] = option(
        DEFAULT_TIMES,
        "times after programming, such as 1h, 1w, 90 (seconds); the default ones as far as the device's formulas go",
        time=True,
    )
    compensation: str | None = option(
        "auto",
        "none, or global, crossbar or column; with affine (or bias), batch-norm, ranges: global+affine; affine@1h: "
        "measured at one hour; auto: global, and batch-norm where the network has one",
    )
    validation_chips: int = option(3, "chips of the metrics after each epoch", ge=1)
    validation_time: str = option("1d", "time of the metrics after each epoch", time=True)
    batch_size: int = option(1000, "samples per forward", ge=1)

    def __post_init__(self) -> None:
        if isinstance(self.samples_per_chip, str) and self.samples_per_chip != "auto":
            raise InvalidValueError(
                f"samples_per_chip must be a number of samples, or auto, got {self.samples_per_chip!r}"
            )

    @property
    def counts(self) -> dict[str, Any]:
        """How many chips and samples the final evaluation takes, as arguments of `analogsim.evaluate`."""
        return {
            "chips": self.chips if self.precision is None else self.most_chips,
            "precision": self.precision,
            "samples_per_chip": self.samples_per_chip,
        }


@dataclass(frozen=True)
class CalibrationOptions:
    """What ranges of converters are set on, where the crossbar leaves them to calibration or to training."""

    samples: int = option(1024, "training samples taken for it, and by a compensation that needs data", ge=1)
    percentile: float = option(99.99, "of the magnitudes that fit into a range", gt=0, le=100, unit="%")
    learn_ranges: bool = option(
        True, "hardware-aware training learns the input ranges of a DAC of which the crossbar does not say input_range"
    )


@dataclass(frozen=True)
class TrackingOptions:
    """Where the runs are logged."""

    enabled: bool = option(True, "log to MLflow")
    uri: str | None = option(None, "MLflow tracking URI; default: MLFLOW_TRACKING_URI, else mlflow.db here")
    experiment: str = option("analogsim", "MLflow experiment")


@dataclass(frozen=True)
class Config:
    """Everything ``analogsim train`` can be told."""

    device: str = option("pcm", 'device model, such as "pcm" or "gaussian(std=0.05)"; see: analogsim devices')
    crossbar: str = option("ideal", 'array, converters and wires: ideal, standard, or "standard(adc_bits=6)"')
    model: str = option("lenet5", "mlp, lenet5, ..., a torchvision classifier, or file.py:factory")
    weights: str | None = option(None, "file that the network starts from: safetensors, or a state dict of torch.save")
    task: str | None = option(
        None, "classification, regression, language-modelling, multi-label or file.py:Task; default: what the data say"
    )
    metric: str | None = option(None, "what networks are judged by, a name or file.py:score; default: the task's")
    # torch's generator of the CPU takes 32 bits of a seed and forgets the others: two seeds might be one.
    seed: int = option(0, "of weights, batches and training noise", ge=0, lt=2**32)
    run_on: str = option("auto", "where torch computes", choices=("auto", "cpu", "cuda"))
    out: str = option("runs", "folder of the runs")
    baseline: bool = option(True, "also train the same network without noise, to compare with")
    data: DataOptions = section(DataOptions, "which data, from where")
    optimization: OptimizationOptions = section(OptimizationOptions, "how the weights are learned")
    noise: NoiseOptions = section(NoiseOptions, "what the hardware-aware network sees in training")
    training: TrainingOptions = section(TrainingOptions, "how the hardware-aware network comes by its gradients")
    evaluation: EvaluationOptions = section(EvaluationOptions, "how the networks are judged")
    calibration: CalibrationOptions = section(CalibrationOptions, "what ranges of converters are set on")
    tracking: TrackingOptions = section(TrackingOptions, "where the runs are logged")


@dataclass(frozen=True)
class StudyOptions:
    """How ``analogsim tune`` searches."""

    name: str | None = option(None, "the study, to resume it and to share it; default: data, model and device")
    storage: str | None = option(None, "Optuna storage URL; default: OPTUNA_STORAGE, else optuna.db here")
    trials: int = option(50, "trials in all, over all workers", ge=1)
    timeout: str | None = option(
        None, 'start no more trials in this worker after such a time, as "30min" or "8h"', time=True
    )
    pareto: bool = option(False, "find the whole front of clean against drifted score; no pruning then")
    percentile: float | None = option(
        None,
        "judge a network by this percentile over its chips, counted from the bad end; default: 5, beside their mean",
        ge=0,
        le=100,
        unit="%",
    )
    over_chips: str = option(
        "auto",
        "what is taken over the chips: mean, percentile, or both, half the mean and half the percentile; auto: "
        "percentile where one is given, else both",
        choices=("auto", "mean", "percentile", "both"),
    )
    min_clean: float | None = option(None, "only networks of at least this clean accuracy count", gt=0, lt=1)
    clean_limit: float | None = option(
        None, "the same of any metric: only networks whose clean score is this or a better one count"
    )
    chips: int = option(10, "chips on which a trial is judged, at evaluation.validation_time", ge=1)
    sampler: str = option(
        "tpe", 'tpe, gp, cmaes, nsgaii, nsgaiii, qmc, random, brute-force; "tpe(gamma=...)" sets more'
    )
    pruner: str = option("median", 'median, percentile, hyperband, successive-halving or none; "median(...)" sets more')
    seed: int = option(
        0, "of the sampler; trial k gets the same suggestions in one run and in a resumed one", ge=0, lt=2**32
    )
    default_first: bool = option(True, "the first trial has the values of this configuration")
    final_seeds: int = option(1, "training seeds of the comparison at the end, from `seed` on", ge=1)
    heartbeat: int = option(30, "a worker that is silent four times as long is dead", ge=1, unit="s")
    retries: int = option(3, "how often the trial of a dead worker is tried again", ge=0)

    def __post_init__(self) -> None:
        if self.over_chips == "mean" and self.percentile is not None:
            raise InvalidValueError(
                f"over_chips=mean and percentile={self.percentile:g} are two ways to judge; leave one out, or say "
                "over_chips=both"
            )
        if self.min_clean is not None and self.clean_limit is not None:
            raise InvalidValueError(
                f"min_clean={self.min_clean:g} and clean_limit={self.clean_limit:g} are two bounds on the same score; "
                "give one of them"
            )


@dataclass(frozen=True)
class StudyConfig(Config):
    """Everything ``analogsim tune`` can be told: a training, what of it is searched, and how."""

    study: StudyOptions = section(StudyOptions, "how the search goes")
    search: Space = option(DEFAULT_SPACE, "what is searched; a table in a file replaces the default one")


# The short options of the command line, the keywords of recipes called from Python, and the settings they stand for.
SHORT = {
    "device": ("device", "device model: pcm, gaussian(std=0.05), ... (see: analogsim devices)"),
    "crossbar": ("crossbar", "array, converters and wires: ideal, standard, standard(adc_bits=6), ..."),
    "data": (
        "data.name",
        "digits (bundled), mnist, fashion-mnist, cifar10, folder:PATH, npz:FILE, audio:PATH, text:FILE, file.py:make",
    ),
    "folder": ("data.folder", "where the data files lie, plain or gzipped"),
    "model": ("model", "mlp, lenet5, resnet20, audio-cnn, ..., a torchvision classifier, or file.py:factory"),
    "weights": ("weights", "start from the weights in a file"),
    "task": ("task", "classification, regression, language-modelling, multi-label or file.py:Task"),
    "metric": ("metric", "what networks are judged by: a name or file.py:score; default: the task's"),
    "epochs": ("optimization.epochs", "passes over the training data; 0 puts weights on chips as they are"),
    "chips": ("evaluation.chips", "chips of the final evaluation"),
    "seed": ("seed", "of weights, batches and noise"),
    "out": ("out", "folder of the runs"),
}
STUDY_SHORT = {
    **SHORT,
    "study": ("study.name", "the study, to resume it and to share it; default: data, model and device"),
    "storage": ("study.storage", "Optuna storage URL; default: OPTUNA_STORAGE, else optuna.db here"),
    "trials": ("study.trials", "trials in all, over all workers"),
    "timeout": ("study.timeout", 'start no more trials after such a time, as "30min" or "8h"'),
    "time": ("evaluation.validation_time", "the time after programming at which networks are judged"),
    "percentile": (
        "study.percentile",
        "judge by this percentile over the chips from the bad end; default: by half the mean and half the 5th",
    ),
    "min-clean": ("study.min_clean", "only networks of at least this clean accuracy count, such as 0.9"),
    "clean-limit": (
        "study.clean_limit",
        "only networks of this clean score, in the metric's unit, or a better one count",
    ),
    "sampler": ("study.sampler", "tpe, gp, cmaes, nsgaii, nsgaiii, qmc, random, brute-force"),
    "pruner": ("study.pruner", "median, percentile, hyperband, successive-halving, none"),
}
