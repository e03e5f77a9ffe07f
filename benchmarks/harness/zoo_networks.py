"""The zoo: networks that people have, as tiny as they can be made for tests, and as people know them for tables.

Nothing is downloaded: every weight is random, from seed 0. Builders import their library when they are called.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import rnn

from analogsim import Effect
from analogsim.utils.torch_private import BatchNorm

CLASSES = 10
WORDS = 50  # of the vocabulary of tiny networks


@dataclass(frozen=True)
class Perfect(Effect):
    """Cells that are what they should be; weights go through conductances and back all the same."""


@dataclass(frozen=True)
class Example:
    """What goes into a network.

    Args:
        args: positional inputs.
        kwargs: inputs by name.
        training: inputs by name that only a training forward takes.
        samples: how many are in the batch.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 1

    def to(self, dtype: torch.dtype, device: torch.device | None = None) -> Example:
        """The same with floating-point tensors in another precision, and all on another device if one is given."""
        args, kwargs, training = (_moved(each, dtype, device) for each in (self.args, self.kwargs, self.training))
        return Example(args, kwargs, training, self.samples)

    def run(self, network: nn.Module) -> Any:
        """The network's output."""
        return network(*self.args, **self.kwargs, **(self.training if network.training else {}))


def _moved(value: Any, dtype: torch.dtype, device: torch.device | None) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, dtype if value.is_floating_point() else value.dtype)
    if isinstance(value, Mapping):
        return {key: _moved(each, dtype, device) for key, each in value.items()}
    return type(value)(_moved(each, dtype, device) for each in value) if isinstance(value, list | tuple) else value


def tensors(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors in a network's output: in tuples, lists and dicts."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        for each in output.values():
            yield from tensors(each)
    elif isinstance(output, list | tuple):
        for each in output:
            yield from tensors(each)


def deviation(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest deviation, as a fraction of the largest magnitude of its tensor; infinite if the shapes differ."""
    if [each.shape for each in found] != [each.shape for each in wanted]:
        return math.inf
    pairs = [(one, other) for one, other in zip(found, wanted, strict=True) if other.numel()]
    return max(float((one - other).abs().max() / other.abs().max().clamp(min=1e-30)) for one, other in pairs)


def loss_of(output: Any) -> Tensor:
    """One number to train on: the losses that a network hands out, or else the mean square of each output, summed."""
    given = getattr(output, "loss", None)
    if isinstance(given, Tensor):
        return given
    found = list(tensors(output))
    if all(each.ndim == 0 for each in found):
        return torch.stack(found).sum()
    return torch.stack([each.square().mean() for each in found]).sum()


@dataclass(frozen=True)
class Network:
    """One of the zoo.

    Args:
        name: of the family.
        tiny: makes the tiny one; call `build`.
        example: inputs of the tiny one.
        known: the name of the one that people know.
        full: makes that; None where there is none.
        full_example: its inputs.
        needs: the library it comes from.
    """

    name: str
    tiny: Callable[[], nn.Module]
    example: Callable[[], Example]
    known: str = ""
    full: Callable[[], nn.Module] | None = None
    full_example: Callable[[], Example] | None = None
    needs: str = "torch"

    @property
    def available(self) -> bool:
        """Whether its library is installed."""
        return find_spec(self.needs) is not None

    def build(self, *, full: bool = False) -> tuple[nn.Module, Example]:
        """The network, always with the same weights, and its inputs; the tiny one where there is no other."""
        make, inputs = self.tiny, self.example
        if full and self.full is not None and self.full_example is not None:
            make, inputs = self.full, self.full_example
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            network, example = make(), inputs()
            _set_batch_norm(network, example)
        return network, example


@torch.no_grad()
def _set_batch_norm(network: nn.Module, example: Example) -> None:
    """Give batch norm the statistics of the example: with those it is made with, deep networks forget their input."""
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        example.run(network.train())
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def images(size: int, batch: int = 2) -> Example:
    """Random images ``(batch, 3, size, size)``."""
    return Example((torch.randn(batch, 3, size, size),), samples=batch)


def words(length: int, batch: int = 2, vocabulary: int = WORDS) -> Example:
    """Random words ``(batch, length)``, which are their own labels."""
    found = torch.randint(vocabulary, (batch, length))
    return Example(kwargs={"input_ids": found, "labels": found.clone()}, samples=batch)


# --- torchvision ----------------------------------------------------------------------------------------------------


def _vision(name: str, **options: Any) -> nn.Module:
    from torchvision import models

    network: Any = getattr(models, name)(weights=None, **options)
    if name.startswith("vit"):
        nn.init.normal_(network.heads[0].weight, std=0.02)  # zero as it is made
    return network  # type: ignore[no-any-return]


def _resnet() -> nn.Module:
    from torchvision.models import resnet

    # A bottleneck's inner width can be chosen, that of a basic block cannot.
    return resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=CLASSES, width_per_group=4)  # type: ignore[no-any-return]


def _vgg() -> nn.Module:
    from torchvision.models import vgg

    with torch.device("meta"):  # 100 million weights, to be replaced
        network: nn.Module = vgg.VGG(nn.Sequential(), init_weights=False)
    network.features = vgg.make_layers([8, "M", 16, "M"], batch_norm=True)
    network.classifier = nn.Sequential(nn.Linear(16 * 49, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, CLASSES))
    return network


def _densenet() -> nn.Module:
    from torchvision.models import densenet

    return densenet.DenseNet(4, (2, 2, 2, 2), 8, bn_size=2, num_classes=CLASSES)  # type: ignore[no-any-return]


def _mobilenet() -> nn.Module:
    from torchvision.models import mobilenetv3

    block = partial(mobilenetv3.InvertedResidualConfig, dilation=1, width_mult=1.0)
    blocks = [block(8, 3, 16, 8, True, "RE", 2), block(8, 5, 24, 8, True, "HS", 1)]
    return mobilenetv3.MobileNetV3(blocks, 16, num_classes=CLASSES)  # type: ignore[no-any-return]


def _efficientnet() -> nn.Module:
    from torchvision.models import efficientnet

    blocks = [efficientnet.MBConvConfig(1, 3, 1, 8, 8, 1), efficientnet.MBConvConfig(4, 5, 2, 8, 16, 2)]
    return efficientnet.EfficientNet(blocks, dropout=0.2, num_classes=CLASSES, last_channel=32)  # type: ignore[no-any-return]


def _convnext() -> nn.Module:
    from torchvision.models import convnext

    blocks = [convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)]
    # As it is made, a block adds a millionth of itself to its input.
    return convnext.ConvNeXt(blocks, stochastic_depth_prob=0.1, layer_scale=0.5, num_classes=CLASSES)  # type: ignore[no-any-return]


def _vit() -> nn.Module:
    from torchvision.models import vision_transformer

    network: nn.Module = vision_transformer.VisionTransformer(32, 8, 2, 2, 16, 32, dropout=0.1, num_classes=CLASSES)
    nn.init.normal_(network.heads[0].weight)  # type: ignore[union-attr, index]  # zero as it is made
    return network


def _swin(version: int) -> nn.Module:
    from torchvision.models import swin_transformer as swin

    options: dict[str, Any] = {}
    if version == 2:
        options = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2}
    return swin.SwinTransformer([4, 4], 8, [2, 2], [1, 2], [2, 2], dropout=0.1, num_classes=CLASSES, **options)  # type: ignore[no-any-return]


def _regnet() -> nn.Module:
    from torchvision.models import regnet

    widths = regnet.BlockParams.from_init_params(depth=4, w_0=8, w_a=8.0, w_m=2.0, group_width=8, se_ratio=0.5)
    return regnet.RegNet(widths, num_classes=CLASSES, stem_width=8)  # type: ignore[no-any-return]


def _narrow(block: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """A convolution block with an eighth of the channels."""

    def make(inputs: int, outputs: int, **options: Any) -> nn.Module:
        return block(inputs if inputs == 3 else inputs // 8, outputs // 8, **options)

    return make


def _inception() -> nn.Module:
    from torchvision.models import inception

    conv = _narrow(inception.BasicConv2d)
    kinds = (getattr(inception, f"Inception{letter}") for letter in ("A", "B", "C", "D", "E", "Aux"))
    blocks = [conv, *(partial(kind, conv_block=conv) for kind in kinds)]
    network: nn.Module = inception.Inception3(CLASSES, inception_blocks=blocks, init_weights=False)
    network.fc, network.AuxLogits.fc = nn.Linear(256, CLASSES), nn.Linear(96, CLASSES)  # type: ignore[union-attr]
    return network


def _googlenet() -> nn.Module:
    from importlib import import_module

    googlenet = import_module("torchvision.models.googlenet")
    conv = _narrow(googlenet.BasicConv2d)
    kinds = (googlenet.Inception, googlenet.InceptionAux)
    blocks = [conv, *(partial(kind, conv_block=conv) for kind in kinds)]
    network: Any = googlenet.GoogLeNet(CLASSES, init_weights=False, blocks=blocks)
    network.fc = nn.Linear(128, CLASSES)
    for branch in (network.aux1, network.aux2):
        branch.fc1, branch.fc2 = nn.Linear(256, 16), nn.Linear(16, CLASSES)
    return network  # type: ignore[no-any-return]


def _shufflenet() -> nn.Module:
    from torchvision.models import shufflenetv2

    return shufflenetv2.ShuffleNetV2([2, 2, 2], [8, 8, 16, 32, 32], num_classes=CLASSES)  # type: ignore[no-any-return]


class _Stages(nn.Module):
    """A backbone: convolutions with stride 2, whose outputs are all handed out, by number.

    Args:
        widths: channels of the image and of each stage.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
            for before, after in pairwise(widths)
        )
        self.out_channels = widths[-1]

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """``(N, C, H, W)`` to a map of each stage."""
        found = OrderedDict()
        for index, stage in enumerate(self.stages):
            x = stage(x)
            found[str(index)] = x
        return found


class _Last(_Stages):
    """A backbone that hands out its last stage, as segmentation takes it."""

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """``(N, C, H, W)`` to the map of the last stage."""
        return OrderedDict(out=super().forward(x).popitem()[1])


def _deeplab() -> nn.Module:
    from torchvision.models.segmentation import deeplabv3

    head = deeplabv3.DeepLabHead(8, CLASSES, atrous_rates=(2, 4))
    return deeplabv3.DeepLabV3(_Last(3, 8, 8), head)  # type: ignore[no-any-return]


class _OneMap(_Stages):
    """A backbone that hands out its last stage as one map."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """``(N, C, H, W)`` to the map of the last stage."""
        return super().forward(x).popitem()[1]


def _faster_rcnn() -> nn.Module:
    from torchvision.models.detection import faster_rcnn, rpn
    from torchvision.ops import MultiScaleRoIAlign

    return faster_rcnn.FasterRCNN(  # type: ignore[no-any-return]
        _OneMap(3, 8, 8),
        min_size=64,
        max_size=64,
        rpn_anchor_generator=rpn.AnchorGenerator(((16, 32),), ((0.5, 1.0),)),
        rpn_pre_nms_top_n_train=50,
        rpn_pre_nms_top_n_test=20,
        rpn_post_nms_top_n_train=20,
        rpn_post_nms_top_n_test=10,
        box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2),
        box_head=faster_rcnn.TwoMLPHead(8 * 9, 16),
        box_predictor=faster_rcnn.FastRCNNPredictor(16, 3),
        box_batch_size_per_image=16,
    )


def _ssdlite() -> nn.Module:
    from torchvision.models.detection import anchor_utils, ssd, ssdlite

    anchors = anchor_utils.DefaultBoxGenerator([[2], [2]])
    head = ssdlite.SSDLiteHead([8, 16], anchors.num_anchors_per_location(), 3, nn.BatchNorm2d)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), _Stages(8, 8, 16))
    return ssd.SSD(backbone, anchors, (32, 32), 3, head=head)  # type: ignore[no-any-return]


def scenes(size: int, batch: int = 2) -> Example:
    """A list of images ``(3, size, size)`` in 0 to 1, with two boxes each to find in training."""
    pictures = [torch.rand(3, size, size) for _ in range(batch)]
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.3, 0.4, 0.9, 0.9]]) * size
    targets = [{"boxes": boxes, "labels": torch.tensor([1, 2])} for _ in pictures]
    return Example((pictures,), training={"targets": targets}, samples=batch)


def _detection(name: str, **options: Any) -> nn.Module:
    from torchvision.models import detection

    return getattr(detection, name)(weights=None, weights_backbone=None, **options)  # type: ignore[no-any-return]


# --- transformers ---------------------------------------------------------------------------------------------------


def hugging_face(kind: str, config: str, **options: Any) -> nn.Module:
    import transformers

    return getattr(transformers, kind)(getattr(transformers, config)(**options))  # type: ignore[no-any-return]


def _gpt2(**options: Any) -> nn.Module:
    network: Any = hugging_face(
        "GPT2LMHeadModel", "GPT2Config", bos_token_id=0, eos_token_id=0, use_cache=False, **options
    )
    network.loss_type = "ForCausalLM"  # what it falls back to, with a message
    return network  # type: ignore[no-any-return]


_bert = partial(hugging_face, "BertForMaskedLM", "BertConfig")
_hf_vit = partial(hugging_face, "ViTForImageClassification", "ViTConfig")
_llama = partial(hugging_face, "LlamaForCausalLM", "LlamaConfig", use_cache=False)
_t5 = partial(hugging_face, "T5ForConditionalGeneration", "T5Config", use_cache=False, decoder_start_token_id=0)
SMALL = {"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


# --- timm -----------------------------------------------------------------------------------------------------------


def timm_model(name: str, **options: Any) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, **options)


# --- our own --------------------------------------------------------------------------------------------------------


class Tagger(nn.Module):
    """A tag for each word of each sentence: an embedding, a bidirectional LSTM on packed sequences, a linear layer.

    Args:
        vocabulary: number of words.
        size: of the embedding and of each direction's state.
        layers: of the LSTM.
        tags: number of tags.
    """

    def __init__(self, vocabulary: int, size: int, layers: int, tags: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size)
        self.lstm = nn.LSTM(size, size, layers, batch_first=True, bidirectional=True, dropout=0.1)
        self.head = nn.Linear(2 * size, tags)

    def forward(self, found: Tensor, lengths: Tensor) -> Tensor:
        """Words ``(batch, length)``, of which ``lengths (batch,)`` count, to ``(batch, length, tags)``."""
        packed = rnn.pack_padded_sequence(self.embedding(found), lengths, batch_first=True, enforce_sorted=False)
        states, _ = rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.head(states)  # type: ignore[no-any-return]


def sentences(vocabulary: int, length: int, batch: int) -> Example:
    """Random words, the last sentence half as long as the others."""
    lengths = torch.full((batch,), length)
    lengths[-1] = length // 2
    return Example((torch.randint(vocabulary, (batch, length)), lengths), samples=batch)


class UNet(nn.Module):
    """A U-Net: as many halvings as widths but one, and back by transposed convolutions, with shortcuts across.

    Ronneberger, Fischer, Brox: U-Net, MICCAI 2015. Departures: padding, so that maps keep their size, and batch norm.

    Args:
        widths: channels on each level.
        classes: number of output channels.
    """

    def __init__(self, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(self._level(before, after) for before, after in pairwise((3, *widths)))
        pairs = [(deep, shallow) for shallow, deep in pairwise(widths)][::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, shallow, 2, stride=2) for deep, shallow in pairs)
        self.joined = nn.ModuleList(self._level(2 * shallow, shallow) for _, shallow in pairs)
        self.head = nn.Conv2d(widths[0], classes, 1)

    @staticmethod
    def _level(inputs: int, outputs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for before in (inputs, outputs):
            layers += [nn.Conv2d(before, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 3, H, W)`` to ``(N, classes, H, W)``."""
        kept = []
        for index, level in enumerate(self.down):
            x = level(functional.max_pool2d(x, 2) if index else x)
            kept.append(x)
        for up, level, across in zip(self.up, self.joined, kept[-2::-1], strict=True):
            x = level(torch.cat((up(x), across), 1))
        return self.head(x)  # type: ignore[no-any-return]


class Translator(nn.Module):
    """torch's own encoder and decoder between an embedding and a linear layer.

    Args:
        vocabulary: number of words.
        size: of the embedding.
        heads: of the attention.
        layers: of encoder and decoder each.
        hidden: width of the layers between.
    """

    def __init__(self, vocabulary: int, size: int, heads: int, layers: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size)
        self.transformer = nn.Transformer(size, heads, layers, layers, hidden, batch_first=True)
        self.head = nn.Linear(size, vocabulary)

    def forward(self, source: Tensor, target: Tensor, padding: Tensor) -> Tensor:
        """Words ``(batch, length)``, and where the source is padding, to ``(batch, target length, vocabulary)``."""
        mask = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool, device=target.device).triu(1)
        decoded = self.transformer(
            self.embedding(source),
            self.embedding(target),
            tgt_mask=mask,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return self.head(decoded)  # type: ignore[no-any-return]


def pairs_of_sentences(vocabulary: int, length: int, batch: int) -> Example:
    """Random words in and out; the second half of the last sentence is padding."""
    padding = torch.zeros(batch, length, dtype=torch.bool)
    padding[-1, length // 2 :] = True
    source, target = (torch.randint(vocabulary, (batch, size)) for size in (length, length - 1))
    return Example((source, target, padding), samples=batch)


def _torchvision(
    name: str, tiny: Callable[[], nn.Module], known: str, size: int = 32, full_size: int = 224, **options: Any
) -> Network:
    full, full_example = partial(_vision, known, **options), partial(images, full_size)
    return Network(name, tiny, partial(images, size), known, full, full_example, "torchvision")


NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        _torchvision("resnet", _resnet, "resnet18"),
        _torchvision("vgg", _vgg, "vgg16_bn"),
        _torchvision("densenet", _densenet, "densenet121"),
        _torchvision("mobilenet-v3", _mobilenet, "mobilenet_v3_small"),
        _torchvision("efficientnet", _efficientnet, "efficientnet_b0"),
        _torchvision("convnext", _convnext, "convnext_tiny", layer_scale=0.5),
        _torchvision("vit", _vit, "vit_b_16"),
        _torchvision("swin", partial(_swin, 1), "swin_t"),
        _torchvision("swin-v2", partial(_swin, 2), "swin_v2_t", full_size=256),
        _torchvision("regnet", _regnet, "regnet_y_400mf"),
        _torchvision("inception", _inception, "inception_v3", 299, 299, init_weights=False),
        _torchvision("googlenet", _googlenet, "googlenet", init_weights=False),
        _torchvision("shufflenet", _shufflenet, "shufflenet_v2_x1_0", 64),
        _torchvision("squeezenet", partial(_vision, "squeezenet1_1", num_classes=CLASSES), "squeezenet1_1"),
        _torchvision("mnasnet", partial(_vision, "mnasnet0_5", num_classes=CLASSES), "mnasnet1_0", 64),
        Network(
            "deeplab-v3",
            _deeplab,
            partial(images, 32),
            "deeplabv3_mobilenet_v3_large",
            lambda: _segmentation("deeplabv3_mobilenet_v3_large"),
            partial(images, 224),
            "torchvision",
        ),
        Network(
            "faster-rcnn",
            _faster_rcnn,
            partial(scenes, 64),
            "fasterrcnn_mobilenet_v3_large_320_fpn",
            partial(_detection, "fasterrcnn_mobilenet_v3_large_320_fpn", box_score_thresh=0.0),
            partial(scenes, 320),
            "torchvision",
        ),
        Network(
            "ssdlite",
            _ssdlite,
            partial(scenes, 32),
            "ssdlite320_mobilenet_v3_large",
            partial(_detection, "ssdlite320_mobilenet_v3_large"),
            partial(scenes, 320),
            "torchvision",
        ),
        Network(
            "bert",
            partial(_bert, **SMALL, intermediate_size=32, max_position_embeddings=16),
            partial(words, 8),
            "BERT base",
            _bert,
            partial(words, 128, 1, 30522),
            "transformers",
        ),
        Network(
            "gpt2",
            partial(_gpt2, vocab_size=WORDS, n_embd=16, n_layer=2, n_head=2, n_positions=16),
            partial(words, 8),
            "GPT-2 small",
            _gpt2,
            partial(words, 128, 1, 50257),
            "transformers",
        ),
        Network(
            "hf-vit",
            partial(
                _hf_vit,
                **{key: value for key, value in SMALL.items() if key != "vocab_size"},
                intermediate_size=32,
                image_size=32,
                patch_size=8,
                num_labels=CLASSES,
            ),
            partial(images, 32),
            "ViT-B/16 of transformers",
            partial(_hf_vit, num_labels=1000),
            partial(images, 224),
            "transformers",
        ),
        Network(
            "llama",
            partial(_llama, **SMALL, intermediate_size=32, num_key_value_heads=1, max_position_embeddings=16),
            partial(words, 8),
            "Llama of 135 M parameters",
            partial(
                _llama,
                vocab_size=49152,
                hidden_size=576,
                intermediate_size=1536,
                num_hidden_layers=30,
                num_attention_heads=9,
                num_key_value_heads=3,
                tie_word_embeddings=True,
            ),
            partial(words, 128, 1, 49152),
            "transformers",
        ),
        Network(
            "t5",
            partial(_t5, vocab_size=WORDS, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2),
            partial(words, 8),
            "T5 small",
            _t5,
            partial(words, 128, 1, 32128),
            "transformers",
        ),
        Network(
            "timm-vit",
            partial(
                timm_model,
                "vit_tiny_patch16_224",
                img_size=32,
                patch_size=8,
                embed_dim=16,
                depth=2,
                num_heads=2,
                num_classes=CLASSES,
            ),
            partial(images, 32),
            "vit_small_patch16_224 of timm",
            partial(timm_model, "vit_small_patch16_224"),
            partial(images, 224),
            "timm",
        ),
        Network(
            "timm-efficientnet",
            partial(timm_model, "test_efficientnet", num_classes=CLASSES),
            partial(images, 32),
            "tf_efficientnet_b0 of timm",
            partial(timm_model, "tf_efficientnet_b0"),
            partial(images, 224),
            "timm",
        ),
        Network(
            "lstm-tagger",
            partial(Tagger, WORDS, 8, 2, CLASSES),
            partial(sentences, WORDS, 6, 3),
            "LSTM tagger, 2 x 256",
            partial(Tagger, 10000, 256, 2, 17),
            partial(sentences, 10000, 40, 16),
        ),
        Network(
            "u-net",
            partial(UNet, (4, 8, 8), 2),
            partial(images, 16),
            "U-Net, 64 to 1024",
            partial(UNet, (64, 128, 256, 512, 1024), 2),
            partial(images, 128),
        ),
        Network(
            "transformer",
            partial(Translator, WORDS, 16, 2, 1, 32),
            partial(pairs_of_sentences, WORDS, 6, 3),
            "Transformer base",
            partial(Translator, 10000, 512, 8, 6, 2048),
            partial(pairs_of_sentences, 10000, 40, 4),
        ),
    )
}


def _segmentation(name: str) -> nn.Module:
    from torchvision.models import segmentation

    return getattr(segmentation, name)(weights=None, weights_backbone=None)  # type: ignore[no-any-return]
