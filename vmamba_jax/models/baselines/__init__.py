"""Comparison models: ViT/DeiT, Swin, ConvNeXt, ResNet, EfficientNet-Lite."""
