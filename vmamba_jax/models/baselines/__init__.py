"""Comparison models: ViT/DeiT/DINOv2, Swin, ConvNeXt, MambaOut, Spatial-Mamba, MambaVision, ResNet, EfficientNet-Lite."""
