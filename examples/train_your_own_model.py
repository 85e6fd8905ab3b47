"""Your own network in your own training loop: one call cuts it, one line of the loop changes.

    python examples/train_your_own_model.py --epochs 8

The images are embedded (digits on photos): nothing is downloaded.
"""

import argparse

import torch
from torch import nn

import infopro
from infopro.data import batches, digits_on_photos


def block(in_channels: int, out_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels, stride in ((in_channels, 2), (out_channels, 1)):
        layers += [nn.Conv2d(channels, out_channels, 3, stride, padding=1)]
        layers += [nn.BatchNorm2d(out_channels), nn.ReLU()]
    return nn.Sequential(*layers)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--images", type=int, default=5700, help="training images to render")
options = parser.parse_args()

torch.manual_seed(0)
data = digits_on_photos(train_size=options.images, test_size=500)
model = nn.Sequential(  # any nn.Module will do
    block(3, 16), block(16, 32), block(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
)

local = infopro.localize(
    model,
    torch.zeros(2, *data.image_shape),
    cuts=["0", "1"],  # K = 3 modules: the names of the blocks that end the first two
    objective=infopro.objectives.InfoPro(task_loss="softmax", reconstruction_weight=0.1, task_weight=1.0),
    task=infopro.tasks.Classification(num_classes=10, mean=data.mean, std=data.std),
)
optimizer = torch.optim.AdamW(local.parameters(), lr=3e-3)  # the network's and the heads'

common = {"batch_size": 64, "mean": data.mean, "std": data.std, "seed": 0, "device": "cpu"}
for epoch in range(1, options.epochs + 1):
    local.train()
    for images, labels in batches(
        data.train, augmentation=data.augmentation, shuffle=True, epoch=epoch, **common
    ):
        optimizer.zero_grad(set_to_none=True)
        out = local.backward(images, labels)  # instead of loss_function(model(images), labels).backward()
        optimizer.step()
    losses = " ".join(f"{float(each['total']):.3f}" for each in out.losses)

    model.eval()  # your own network, trained: no heads, no wrapper
    with torch.no_grad():
        tests = batches(data.test, augmentation=None, shuffle=False, epoch=0, **common)
        wrong = sum(int((model(images).argmax(1) != labels).sum()) for images, labels in tests)
    print(f"epoch {epoch}: module losses {losses}, test error {100 * wrong / len(data.test):.1f} %")
