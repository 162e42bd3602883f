"""Models of dense tasks over the backbones of classification."""
