"""The loop, its schedules, checkpoints and run folders."""

from infopro.training._replica_state import load_apart
from infopro.training.averaging import WeightAverages
from infopro.training.cached import ModuleEpoch, train_cached
from infopro.training.checkpoints import (
    KEPT,
    Checkpoint,
    checkpoints,
    newest_intact,
    publish,
    remove_partial,
    rename_damaged,
    save_checkpoint,
    take_part,
    write_shard,
)
from infopro.training.decoupled import DecoupledEpoch, train_decoupled
from infopro.training.divergence import Diverged
from infopro.training.environment import describe_environment, processor_name
from infopro.training.evaluation import Evaluation, evaluate, evaluate_data
from infopro.training.lock import LOCK_FILE, locked, refuse_locked
from infopro.training.loop import Position, train
from infopro.training.optimizers import list_optimizers, make_optimizer
from infopro.training.progress import TrainingProgress
from infopro.training.restoring import load_checkpoint, load_local, load_model
from infopro.training.run_folder import RunFolder
from infopro.training.schedules import SCHEDULES, make_schedule
from infopro.training.spikes import LossSpike, Spiked, stop_at_spikes
from infopro.training.tensorboard import TensorBoardLog
from infopro.training.totals import EpochSums

__all__ = [
    "KEPT",
    "LOCK_FILE",
    "SCHEDULES",
    "Checkpoint",
    "DecoupledEpoch",
    "Diverged",
    "EpochSums",
    "Evaluation",
    "LossSpike",
    "ModuleEpoch",
    "Position",
    "RunFolder",
    "Spiked",
    "TensorBoardLog",
    "TrainingProgress",
    "WeightAverages",
    "checkpoints",
    "describe_environment",
    "evaluate",
    "evaluate_data",
    "list_optimizers",
    "load_apart",
    "load_checkpoint",
    "load_local",
    "load_model",
    "locked",
    "make_optimizer",
    "make_schedule",
    "newest_intact",
    "processor_name",
    "publish",
    "refuse_locked",
    "remove_partial",
    "rename_damaged",
    "save_checkpoint",
    "stop_at_spikes",
    "take_part",
    "train",
    "train_cached",
    "train_decoupled",
    "write_shard",
]
