"""Data of your own: 569 biopsies, 30 numbers each, malignant or benign (bundled with scikit-learn)."""

from __future__ import annotations

import torch
from sklearn.datasets import load_breast_cancer
from torch.utils.data import TensorDataset


def load() -> dict[str, TensorDataset]:
    """Train and test parts, standardised by the train part; a share of it is held out for validation."""
    found = load_breast_cancer()
    inputs, labels = torch.tensor(found.data, dtype=torch.float32), torch.tensor(found.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:400], order[400:]
    std, mean = torch.std_mean(inputs[train], 0)
    inputs = (inputs - mean) / std
    return {"train": TensorDataset(inputs[train], labels[train]), "test": TensorDataset(inputs[test], labels[test])}
