"""Inference service: a small PyTorch model behind FastAPI."""

__version__ = "0.1.0"
