"""The loop, its schedules, checkpoints and run folders."""

from infopro.training.cached import ModuleEpoch, train_cached
from infopro.training.checkpoints import (
    Checkpoint,
    checkpoints,
    load_checkpoint,
    load_local,
    load_model,
    publish,
    remove_partial,
    save_checkpoint,
    take_part,
    write_shard,
)
from infopro.training.decoupled import DecoupledEpoch, train_decoupled
from infopro.training.environment import describe_environment, processor_name
from infopro.training.evaluation import Evaluation, evaluate, evaluate_data
from infopro.training.loop import Diverged, Position, train
from infopro.training.optimizers import list_optimizers, make_optimizer
from infopro.training.progress import TrainingProgress
from infopro.training.run_folder import RunFolder
from infopro.training.schedules import SCHEDULES, make_schedule
from infopro.training.tensorboard import TensorBoardLog
from infopro.training.totals import EpochSums

__all__ = [
    "SCHEDULES",
    "Checkpoint",
    "DecoupledEpoch",
    "Diverged",
    "EpochSums",
    "Evaluation",
    "ModuleEpoch",
    "Position",
    "RunFolder",
    "TensorBoardLog",
    "TrainingProgress",
    "checkpoints",
    "describe_environment",
    "evaluate",
    "evaluate_data",
    "list_optimizers",
    "load_checkpoint",
    "load_local",
    "load_model",
    "make_optimizer",
    "make_schedule",
    "processor_name",
    "publish",
    "remove_partial",
    "save_checkpoint",
    "take_part",
    "train",
    "train_cached",
    "train_decoupled",
    "write_shard",
]
