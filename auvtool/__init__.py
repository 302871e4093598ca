"""auvtool: find the cases in a medical image segmentation data set that harm training."""

__version__ = "0.1.0"
