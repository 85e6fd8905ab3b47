"""Is this network cut soundly? Where it may be cut, whether a gradient leaks, whether the parts are exact.

    python examples/check_your_model.py torchvision/resnet18 --num-modules 4 --image-size 64

Takes the names of `infopro list models`; put your own network in place of `create`. Exit status 1 where a
check fails.
"""

import argparse

import torch

import infopro

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", nargs="?", default="cifar_resnet20")
parser.add_argument("--num-modules", type=int, default=4)
parser.add_argument("--image-size", type=int, default=32)
options = parser.parse_args()

torch.manual_seed(0)
model = infopro.models.create(options.model, num_classes=10, image_size=options.image_size)
images = torch.rand(4, 3, options.image_size, options.image_size)
labels = torch.tensor([0, 1, 1, 0])

print("blocks that may end a module:", ", ".join(infopro.blocks(model, images).units[:-1]))
local = infopro.localize(
    model,
    images,
    num_modules=options.num_modules,
    objective=infopro.objectives.InfoPro(task_loss="contrast"),
    task=infopro.tasks.Classification(num_classes=10),
)
print("cuts:", ", ".join(local.split.cuts))
for note in local.split.notes:
    print("note:", note)

isolation = infopro.isolation_check(local, images, labels)
print("isolated:", isolation.isolated)
for stage, parameter in isolation.leaks:
    print(f"  the loss of module {stage + 1} reaches {parameter}")
for parameter in isolation.untrained:
    print(f"  no loss reaches {parameter}")

parity = infopro.parity_check(local, images, labels)
print("parts equal the network bit for bit:", not parity.differences)
for name in parity.differences:
    print(f"  differs: {name}")
print("gradients are those of back-propagation:", parity.equals_end_to_end, "(True exactly if K = 1)")

raise SystemExit(0 if isolation and parity else 1)
