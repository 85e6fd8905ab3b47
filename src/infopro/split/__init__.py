"""Any `nn.Module` -> K parts that share its parameters, found by recording its own forward."""

from infopro.split.blocks import Blocks
from infopro.split.part import Flow, Part
from infopro.split.split_model import SplitModel, blocks, split_model

__all__ = ["Blocks", "Flow", "Part", "SplitModel", "blocks", "split_model"]
