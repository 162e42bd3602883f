"""Random augmentation of a batch, on the device."""
