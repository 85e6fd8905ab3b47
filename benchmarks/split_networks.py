"""The networks of split_coverage.py: one of every timm family, torchvision, smp and transformers.

Images are small and dropout or drop path is on wherever the constructor takes it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["Network", "networks", "segmentation_networks"]

CLASSES = 10
SMALLEST_SIDE = 64  # pixels, for networks that take any size
SIDE = 96  # for networks that are built for one size
SIZE_WORDS = (  # in a name, from small to large
    *("test", "zepto", "atto", "femto", "pico", "nano", "xxs", "xxtiny", "extra_small", "xs", "tiny"),
    *("_ti", "mini", "_s", "small", "18", "_b0", "_m0", "_m1", "_l1", "_s0", "s1", "medium", "base"),
)
CHOSEN = {  # where the name does not tell the smallest
    "byobnet": "gernet_s",
    "cspnet": "cspresnet50",
    "deepseek_vit": "deepseek_vit_412m",
    "efficientnet": "efficientnet_b0",
    "mobilenetv3": "mobilenetv3_small_050",
    "resnet": "resnet18",
    "xcit": "xcit_nano_12_p16_224",
    "vision_transformer": "vit_tiny_patch16_224",
    "convnext": "convnext_atto",
    "eva": "eva02_tiny_patch14_224",
    "maxxvit": "coatnet_pico_rw_224",
    "beit": "beit_base_patch16_224",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "vit_srelpos_small_patch16_224",
    "mlp_mixer": "mixer_s32_224",
    "nfnet": "nfnet_l0",
    "regnet": "regnety_002",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnetr_100",
    "levit": "levit_128s",
    "naflexvit": "naflexvit_base_patch16_gap",
    "volo": "volo_d1_224",
    "gemma4_vit": "gemma4_vit_167m",
    "qwen3_vit": "qwen3_vit_88m",
    "cait": "cait_xxs24_224",
    "hgnet": "hgnetv2_b0",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_ns_224",
    "metaformer": "poolformer_s12",
    "vitamin": "vitamin_small_224",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "res2net": "res2net50_14w_8s",
    "xception_aligned": "xception41p",
    "sknet": "skresnet18",
    "tnt": "tnt_s_patch16_224",
    "dla": "dla46_c",
    "hiera": "hiera_tiny_224",
    "vgg": "vgg11_bn",
    "mvitv2": "mvitv2_tiny",
    "gcvit": "gcvit_xxtiny",
}
SIDES = {  # networks that cannot take SIDE or SMALLEST_SIDE, or would lose windows of attention by it
    "crossvit_tiny_240": 240,
    "efficientformer_l1": 224,
    "eva02_tiny_patch14_224": 98,
    "halonet26t": 256,
    **{f"inception_{version}": 96 for version in ("v3", "v4", "resnet_v2")},
    "mixer_s32_224": 128,
    "swin_s3_tiny_224": 224,
    "swinv2_tiny_window8_256": 128,
    "swinv2_cr_tiny_ns_224": 224,
}
OPTIONS = {  # the smallest of these families has 412 million parameters
    "deepseek_vit_412m": {"depth": 6, "img_size": 98},
}
DROPOUT = ({"drop_rate": 0.1, "drop_path_rate": 0.2}, {"drop_path_rate": 0.2}, {"drop_rate": 0.1}, {})
TOO_LARGE = (  # larger twins of a network in the list: the same code, more of it
    *("regnet_y_128gf", "regnet_y_32gf", "regnet_x_32gf", "vit_h_14", "vit_l_16", "vit_l_32"),
)

Inputs = Callable[[int], tuple[Any, ...]]  # batch size -> the network's inputs


@dataclass(frozen=True)
class Network:
    """How to build one network and what it takes."""

    suite: str
    family: str
    name: str
    build: Callable[[], tuple[nn.Module, Inputs]]


def networks() -> list[Network]:
    """All networks, suite by suite."""
    return [*_timm(), *_torchvision(), *_smp(), *_transformers()]


def segmentation_networks() -> list[Network]:
    """torchvision's and segmentation_models_pytorch's, and Segformer with the encoder it was made for."""
    own = [network for network in [*_torchvision(), *_smp()] if "segmentation" in network.suite]
    return [*own, _smp_network("Segformer", "mit_b0")]


def _images(side: int) -> Inputs:
    return lambda n: (torch.randn(n, 3, side, side),)


def _timm() -> list[Network]:
    import timm

    def entry(family: str) -> Network:
        name = CHOSEN.get(family) or min(timm.list_models(module=family), key=_size)
        return Network("timm", family, name, lambda: _build_timm(name))

    return [entry(family) for family in timm.list_modules()]


def _size(name: str) -> tuple[int, int, str]:
    ranks = [rank for rank, word in enumerate(SIZE_WORDS) if word in name]
    return min(ranks, default=len(SIZE_WORDS)), len(name), name


def _build_timm(name: str) -> tuple[nn.Module, Inputs]:
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    options = dict(OPTIONS.get(name, {}))
    if name in SIDES:
        side = SIDES[name]
    elif config.fixed_input_size:
        side = SIDE
    else:
        side = max(SMALLEST_SIDE, (config.min_input_size or (3, 1, 1))[-1])
    if config.fixed_input_size and side != config.input_size[-1]:
        options.setdefault("img_size", side)
    for dropout in DROPOUT:
        try:
            model = timm.create_model(name, num_classes=CLASSES, **options, **dropout)
        except TypeError:  # a network without this kind of dropout
            continue
        return model, _images(options.get("img_size", side))
    raise TypeError(f"{name} does not take {options}")


def _torchvision() -> list[Network]:
    from torchvision import models

    sides = {"inception_v3": 299, "maxvit_t": 224, "vit_b_16": SIDE, "vit_b_32": SIDE}
    options: dict[str, dict[str, Any]] = {
        **{name: {"init_weights": True} for name in ("googlenet", "inception_v3")},
        **{name: {"image_size": SIDE, "dropout": 0.1} for name in ("vit_b_16", "vit_b_32")},
    }

    def classifier(name: str) -> Network:
        builder = models.get_model_builder(name)
        chosen = options.get(name) or ({"drop_rate": 0.1} if name.startswith("densenet") else {})
        return Network(
            *("torchvision", builder.__module__.rpartition(".")[2], name),
            lambda: (builder(num_classes=CLASSES, **chosen), _images(sides.get(name, SMALLEST_SIDE))),
        )

    def segmenter(name: str) -> Network:
        builder = models.get_model_builder(name)
        chosen: dict[str, Any] = {} if "lraspp" in name else {"aux_loss": True}
        chosen |= {"weights_backbone": None, "num_classes": CLASSES}
        return Network(
            *("torchvision segmentation", name.split("_")[0], name),
            lambda: (builder(**chosen), _images(SMALLEST_SIDE)),
        )

    return [
        *(classifier(name) for name in models.list_models(module=models) if name not in TOO_LARGE),
        *(segmenter(name) for name in models.list_models(module=models.segmentation)),
    ]


def _smp() -> list[Network]:
    names = (
        *("Unet", "UnetPlusPlus", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "Linknet", "MAnet"),
        *("UPerNet", "Segformer"),
    )

    narrow = {"decoder_intermediate_channels": (64, 64, 64, 64), "decoder_fusion_channels": 64}
    return [
        *(_smp_network(name) for name in names),
        _smp_network("PAN", side=128),
        _smp_network("DPT", "tu-vit_tiny_patch16_224", side=224, **narrow),
    ]


def _smp_network(
    name: str, encoder: str = "resnet18", *, side: int = SMALLEST_SIDE, **options: Any
) -> Network:
    def build() -> tuple[nn.Module, Inputs]:
        import segmentation_models_pytorch as smp

        model = getattr(smp, name)(encoder, encoder_weights=None, classes=CLASSES, **options)
        return model, _images(side)

    return Network("segmentation_models_pytorch", name, f"{name} {encoder}", build)


SMALL = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 6, "intermediate_size": 128}


def _transformers() -> list[Network]:
    import transformers as t

    t.logging.set_verbosity_error()

    def tokens(n: int) -> tuple[Any, ...]:
        return torch.randint(2, 100, (n, 12)), torch.ones(n, 12, dtype=torch.long)

    def bert() -> tuple[nn.Module, Inputs]:
        config = t.BertConfig(vocab_size=100, num_labels=CLASSES, max_position_embeddings=32, **SMALL)
        return t.BertForSequenceClassification(config), tokens

    def gpt2() -> tuple[nn.Module, Inputs]:
        config = t.GPT2Config(vocab_size=100, n_positions=32, n_embd=64, n_layer=6, n_head=4, use_cache=False)
        return t.GPT2LMHeadModel(config), lambda n: tokens(n)[:1]

    def llama() -> tuple[nn.Module, Inputs]:
        config = t.LlamaConfig(
            **SMALL,
            vocab_size=100,
            max_position_embeddings=32,
            num_key_value_heads=2,
            attention_dropout=0.1,
            use_cache=False,
        )
        return t.LlamaForCausalLM(config), tokens

    def vit() -> tuple[nn.Module, Inputs]:
        config = t.ViTConfig(
            **SMALL, image_size=64, patch_size=8, num_labels=CLASSES, hidden_dropout_prob=0.1
        )
        return t.ViTForImageClassification(config), _images(64)

    def t5() -> tuple[nn.Module, Inputs]:
        config = t.T5Config(
            vocab_size=100, d_model=64, d_kv=16, d_ff=128, num_layers=6, num_heads=4, use_cache=False
        )
        return t.T5EncoderModel(config), tokens

    builders = {"BERT": bert, "GPT-2": gpt2, "Llama": llama, "ViT": vit, "T5 encoder": t5}
    return [Network("transformers", family, family, build) for family, build in builders.items()]
