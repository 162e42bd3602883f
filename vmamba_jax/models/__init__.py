"""Models: Flax Linen modules by family, with a catalog of named models and their released weights. Imports no attacks, data or training."""
from vmamba_jax.core.deprecation import renamed
from vmamba_jax.models.baselines.convnext import ConvNeXt
from vmamba_jax.models.baselines.efficientnet import EfficientNetLite
from vmamba_jax.models.baselines.mambaout import MambaOut
from vmamba_jax.models.baselines.mambavision import MambaVision
from vmamba_jax.models.baselines.resnet import ResNet
from vmamba_jax.models.baselines.spatial_mamba import SpatialMamba
from vmamba_jax.models.baselines.swin import Swin
from vmamba_jax.models.baselines.vit import ViT
from vmamba_jax.models.catalog import create_model, entry, list_models
from vmamba_jax.models.classifier import IMAGENET_MEAN, IMAGENET_STD, Classifier, as_classifier, logits_fn
from vmamba_jax.models.layers.adaptive_scaling import AdaptiveScaling
from vmamba_jax.models.layers.patches import Downsample, PatchEmbed
from vmamba_jax.models.program_cost import Cost, cost
from vmamba_jax.models.sequence.classifier import SequenceClassifier
from vmamba_jax.models.vim.mixer import VimMixer
from vmamba_jax.models.vim.vim import Block as VimBlock
from vmamba_jax.models.vim.vim import Vim
from vmamba_jax.models.vmamba.ss2d import SS2D
from vmamba_jax.models.vmamba.vmamba import VMamba, VSSBlock, VSSStage

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "SS2D", "AdaptiveScaling", "Classifier", "ConvNeXt", "Cost", "Downsample", "EfficientNetLite", "MambaOut", "MambaVision", "PatchEmbed",
           "ResNet", "SequenceClassifier", "SpatialMamba", "Swin", "VMamba", "VSSBlock", "VSSStage", "ViT", "Vim", "VimBlock", "VimMixer", "as_classifier", "cost", "create_model", "entry",
           "list_models", "logits_fn"]

__getattr__ = renamed(__name__, {
    "attention_fn": "vmamba_jax.analysis:attention_fn",
    "scan_attention": "vmamba_jax.analysis:scan_attention",
})
