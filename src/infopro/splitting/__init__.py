"""Any `nn.Module` -> K parts that share its parameters, found by recording its own forward."""

from infopro.splitting.blocks import Blocks
from infopro.splitting.inputs import as_inputs
from infopro.splitting.live_split import LiveSplit
from infopro.splitting.part import Flow, Part, start
from infopro.splitting.recompute import run_again_later
from infopro.splitting.spans import Checkpoint, one_by_one, together
from infopro.splitting.split_model import SplitModel, blocks, split_model

__all__ = [
    "Blocks",
    "Checkpoint",
    "Flow",
    "LiveSplit",
    "Part",
    "SplitModel",
    "as_inputs",
    "blocks",
    "one_by_one",
    "run_again_later",
    "split_model",
    "start",
    "together",
]
