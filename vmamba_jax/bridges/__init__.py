"""Classifiers from elsewhere: one front door for modules of other frameworks, functions and exported programs; PyTorch through callbacks."""
from vmamba_jax.bridges import torch
from vmamba_jax.bridges.classifier import CheckedClassifier, classifier
from vmamba_jax.bridges.host import HostFunction

__all__ = ["CheckedClassifier", "HostFunction", "classifier", "torch"]
