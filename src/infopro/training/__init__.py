"""The loop, its schedules, checkpoints and run folders."""

from infopro.training.checkpoints import Checkpoint, checkpoints, load_checkpoint, load_model, save_checkpoint
from infopro.training.environment import describe_environment, processor_name
from infopro.training.evaluation import Evaluation, evaluate, evaluate_data
from infopro.training.loop import Diverged, train
from infopro.training.optimizers import list_optimizers, make_optimizer
from infopro.training.progress import TrainingProgress
from infopro.training.run_folder import RunFolder
from infopro.training.schedules import SCHEDULES, make_schedule
from infopro.training.tensorboard import TensorBoardLog

__all__ = [
    "SCHEDULES",
    "Checkpoint",
    "Diverged",
    "Evaluation",
    "RunFolder",
    "TensorBoardLog",
    "TrainingProgress",
    "checkpoints",
    "describe_environment",
    "evaluate",
    "evaluate_data",
    "list_optimizers",
    "load_checkpoint",
    "load_model",
    "make_optimizer",
    "make_schedule",
    "processor_name",
    "save_checkpoint",
    "train",
]
