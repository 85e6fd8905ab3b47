"""What a trained network makes of photos: their classes, a class for every pixel, and pictures of these."""

from infopro.prediction.classifying import ClassPrediction, predict_classes
from infopro.prediction.colours import colour_mask, default_colours, overlay, write_mask
from infopro.prediction.evaluation import evaluate_dense
from infopro.prediction.pictures import segmentation_panels, side_by_side, with_legend
from infopro.prediction.scales import MULTI_SCALE, Inference, probabilities
from infopro.prediction.segmenting import SegmentationPrediction, predict_segmentation
from infopro.prediction.windows import sliding, whole

__all__ = [
    "MULTI_SCALE",
    "ClassPrediction",
    "Inference",
    "SegmentationPrediction",
    "colour_mask",
    "default_colours",
    "evaluate_dense",
    "overlay",
    "predict_classes",
    "predict_segmentation",
    "probabilities",
    "segmentation_panels",
    "side_by_side",
    "sliding",
    "whole",
    "with_legend",
    "write_mask",
]
