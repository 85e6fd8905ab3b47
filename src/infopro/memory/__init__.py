"""What a training step keeps in memory."""

from infopro.memory.measure import SavedBytes, measure_saved_bytes, saved_storages
from infopro.memory.stages import summarize_stages

__all__ = ["SavedBytes", "measure_saved_bytes", "saved_storages", "summarize_stages"]
