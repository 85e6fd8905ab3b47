"""What stands above and under each chart: its title, and how to read it."""

from __future__ import annotations

__all__ = ["TEXTS"]

# by key of the figure: title (short enough for a phone), caption
TEXTS: dict[str, tuple[str, str]] = {
    "learning-curves": (
        "Test error while training",
        "One line per method, one point per epoch: the share of test images that the whole network gets "
        "wrong after that epoch. Lower is better. The result is the last point of a line, not its lowest.",
    ),
    "module-losses": (
        "Training loss of each module",
        "One panel per module, in the order in which an image passes them. “total” is what the module was "
        "trained on; methods weigh different terms, so compare the totals of two methods by their course, "
        "not by their height. A network trained in one piece has one loss, at its output: it stands in "
        "the last panel.",
    ),
    "final-errors": (
        "Test error of the trained networks",
        "Filled mark and number: after the last epoch, which is the result. Hollow mark: after the best "
        "epoch, which was picked by looking at the test images and is shown for comparison only. Left is "
        "better.",
    ),
    "saved-activations": (
        "Memory for the backward pass",
        "Activations that must be kept for the backward pass at the worst moment of one training step, "
        "heads included. With local modules only one module's activations are alive at a time. Shorter is "
        "better.",
    ),
    "reconstruction-errors": (
        "What is left of the image",
        "How far the decoded test images are from the originals, over the whole test set. A line that "
        "climbs early belongs to a method whose early modules throw the image away. Lower means more of "
        "it is kept.",
    ),
}
