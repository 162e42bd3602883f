"""Comparison models: ViT/DeiT, Swin, ConvNeXt, MambaOut, ResNet, EfficientNet-Lite."""
