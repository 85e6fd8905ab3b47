"""What the paper prints of memory and time and no recipe holds: checkpointing's memory, and wall times."""

from __future__ import annotations

__all__ = ["CHECKPOINTED_GB", "TIMES"]

# Table 3, one Titan Xp: end to end with gradient checkpointing, GB
CHECKPOINTED_GB = {"cifar10-resnet110-end-to-end": 3.91, "stl10-resnet110-end-to-end": 4.50}

# recipe, whether checkpointed -> wall time, end to end = 1: Tables 3, 4, and 5 against the same iterations
TIMES = {
    ("cifar10-resnet110-end-to-end", True): 1.275,
    ("cifar10-resnet110-k2-balanced-infopro-contrast", False): 1.011,
    ("cifar10-resnet110-k3-balanced-infopro-contrast", False): 1.075,
    ("cifar10-resnet110-k4-balanced-infopro-contrast", False): 1.134,
    ("stl10-resnet110-end-to-end", True): 1.270,
    ("stl10-resnet110-k2-balanced-infopro-contrast", False): 1.017,
    ("stl10-resnet110-k3-balanced-infopro-contrast", False): 1.070,
    ("stl10-resnet110-k4-balanced-infopro-contrast", False): 1.114,
    ("imagenet-resnet101-k2-balanced-infopro-softmax", False): 1.117,
    ("imagenet-resnet152-k2-balanced-infopro-softmax", False): 1.087,
    ("imagenet-resnext101-32x8d-k2-balanced-infopro-softmax", False): 1.056,
    ("cityscapes-deeplabv3-resnet101-k2-balanced-infopro-softmax", False): 1.022,
}
