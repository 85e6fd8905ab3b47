"""What stands above and under each chart: its title, and how to read it."""

from __future__ import annotations

__all__ = ["TEXTS"]

# by key of the figure: title (short enough for a phone), caption
TEXTS: dict[str, tuple[str, str]] = {
    "learning-curves": (
        "Test error while training",
        "One line per method, one point per epoch: the test error of the whole network after that epoch, a "
        "mean where there are several runs; the band is one standard deviation above and below it. Lower is "
        "better. The result is the last point of a line, not its lowest.",
    ),
    "module-losses": (
        "Training loss of each module",
        "One panel per module, in the order in which an image passes them. “total” is what the module was "
        "trained on; methods weigh different terms, so compare the totals of two methods by their course, "
        "not by their height. A network trained in one piece has one loss, at its output: it stands in "
        "the last panel.",
    ),
    "final-errors": (
        "Test error after training",
        "Filled mark and number: after the last epoch, which is the result; of several runs the mean, with a "
        "bar of one standard deviation to each side. Hollow mark: after the best epoch, which was picked by "
        "looking at the test images and is shown for comparison only. Left is better.",
    ),
    "error-against-k": (
        "Test error against K",
        "One line per objective; to the right the same network is cut into more modules. Marks are means of "
        "the last epoch, bars one standard deviation above and below. The dashed line across is end to end "
        "(K = 1): the distance of a line from it is what training without gradients between modules costs.",
    ),
    "saved-activations": (
        "Memory for the backward pass",
        "Activations that must be kept for the backward pass at the worst moment of one training step, "
        "heads included. With local modules only one module's activations are alive at a time. Shorter is "
        "better.",
    ),
    "step-memory": (
        "Memory of a whole training step",
        "All that is alive at the worst moment of one step. “boundary”: what passes from module to module; "
        "“heads”: their activations, parameters and state; “temporary”: what operations hold for a moment. "
        "Checkpointed: every block keeps its input only and runs again in the backward pass, for the same "
        "gradient. Shorter is better.",
    ),
    "reconstruction-errors": (
        "What is left of the image",
        "How far the decoded test images are from the originals, over the whole test set. A line that "
        "climbs early belongs to a method whose early modules throw the image away. Lower means more of "
        "it is kept.",
    ),
    "linear-separability": (
        "How separable the classes are",
        "Test error of a linear classifier that sees the frozen output of one block; the first point is the "
        "image itself. An early drop means that the block was made to separate classes at once, as a local "
        "loss alone demands; it says nothing yet about the error at the end. Bands are 95 % confidence "
        "intervals; a vertical line stands where one module ends and the next begins.",
    ),
    "image-information": (
        "The image: 1 − cross-entropy",
        "I(h, x) in the form of InfoPro's paper: a decoder was trained to draw the test image from the "
        "frozen output of each block, and its mean binary cross-entropy per pixel was taken from 1. Only "
        "the course of a line and the distance between lines mean something: even a perfect decoder stays "
        "below 1.",
    ),
    "image-information-nats": (
        "The image: information in nats",
        "The same decoders: by how many nats per image they beat the best constant image, which knows "
        "nothing of the test image. A line that falls belongs to a network that throws the image away. What "
        "a decoder cannot find may still be there: these are lower bounds.",
    ),
    "task-information": (
        "The class: I(h, y) in nats",
        "An auxiliary network was trained to tell the class from the frozen output of each block: H(y) minus "
        "its test cross-entropy. No block can know more than the dashed line H(y), and no later block more "
        "than an earlier one; a rising line means that the class became easier to read. The distance between "
        "the solid and the dotted line of a method, two sizes of that network, shows how much of this is the "
        "reader's skill. Below 0: worse than guessing by frequency.",
    ),
    "nuisance-information": (
        "What is not the class: I(h, r)",
        "One panel per property of the image that the class does not depend on, read off by an auxiliary "
        "network like the class. The dashed line H(r) is all there is to know. A good representation may "
        "let these fall while the class stays.",
    ),
    "similarity": (
        "How alike blocks are",
        "Linear CKA of the outputs of two blocks on the same images: 1 (bright) where one is a rotated and "
        "scaled copy of the other, 0 (dark) where they have nothing in common. Bright squares along the "
        "diagonal are stretches of the network that change little.",
    ),
    "gradient-angles": (
        "Local against global gradient",
        "The angle between the gradient that a module learns from and the one that end to end would give "
        "it on the same images: 0° is the same direction, 90° has nothing to do with it, more is against it. "
        "Bars are one standard deviation over batches and runs. The last module's own loss is the network's, "
        "so its angle is 0 by construction.",
    ),
    "gradient-norms": (
        "How long the gradients are",
        "Norm of the gradient of each module's own parameters, heads left out: solid of its local loss, "
        "dotted of the loss at the network's output. A local loss with a large weight pulls harder; the "
        "axis is logarithmic.",
    ),
}
