"""An experiment-tracking research harness for small PyTorch models."""
