"""An optimizer that steps each stage at once: the gradients of one stage exist at a time.

    python examples/step_each_stage.py --steps 20

Decoupled greedy learning (Belilovsky et al. 2020) trains in this way. The features passed on were made before
the update, so every stage computes what it would compute with one step for all at the end.
"""

import argparse

import torch

import infopro

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--num-modules", type=int, default=4)
options = parser.parse_args()

torch.manual_seed(0)
local = infopro.localize(
    infopro.models.demo_resnet(10),
    torch.zeros(2, 3, 32, 32),
    num_modules=options.num_modules,
    objective=infopro.objectives.DGL(),
    task=infopro.tasks.Classification(num_classes=10),
)
optimizer = torch.optim.SGD(local.parameters(), lr=0.05, momentum=0.9)
step_stage = infopro.engines.StageSteps(local, optimizer)
gradient_bytes: list[int] = []


def step(index: int) -> None:
    """Runs between the backward pass of one stage and the forward pass of the next."""
    gradients = [p.grad for p in local.parameters() if p.grad is not None]
    gradient_bytes.append(sum(g.numel() * g.element_size() for g in gradients))
    step_stage(index)


for number in range(1, options.steps + 1):
    images, labels = torch.rand(16, 3, 32, 32), torch.randint(10, (16,))
    out = local.backward(images, labels, on_stage_done=step)
    losses = " ".join(f"{float(each['total']):.3f}" for each in out.losses)
    print(f"step {number}: losses {losses}")

all_bytes = sum(p.numel() * p.element_size() for p in local.parameters())
print(f"gradients at once: {max(gradient_bytes):,} bytes of {all_bytes:,}")
