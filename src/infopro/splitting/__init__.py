"""Any `nn.Module` -> K parts that share its parameters, found by recording its own forward."""

from infopro.splitting.blocks import Blocks
from infopro.splitting.inputs import as_inputs
from infopro.splitting.live_split import LiveSplit
from infopro.splitting.part import Flow, Part, start
from infopro.splitting.split_model import SplitModel, blocks, split_model

__all__ = ["Blocks", "Flow", "LiveSplit", "Part", "SplitModel", "as_inputs", "blocks", "split_model", "start"]
