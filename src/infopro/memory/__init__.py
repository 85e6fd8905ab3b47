"""What a training step keeps in memory."""

from infopro.memory.measure import SavedBytes, measure_saved_bytes, saved_storages

__all__ = ["SavedBytes", "measure_saved_bytes", "saved_storages"]
