"""`python -m vmamba_jax`, also `vmamba-jax`: list models, classify photos, convert and export weights, run the programs.

    python -m vmamba_jax models ['vmamba*'] [--markdown]
    python -m vmamba_jax predict photo.jpg --model vmamba_tiny --weights vssm1_tiny_0230s_ckpt_epoch_264.pth
    python -m vmamba_jax predict photos/ more/*.png --weights runs/own --json
    python -m vmamba_jax predict photo.jpg --model mask_rcnn_vmamba_tiny --weights mask_rcnn.pth --out drawn
    python -m vmamba_jax export --model vmamba_tiny --weights vssm1_tiny_0230s_ckpt_epoch_264.pth --out vmamba_tiny.zip

--weights is a training run's folder, a folder of `convert`, or a released file; the folders name their model, a file needs --model.
"""
import sys

from vmamba_jax.commands import main

if __name__ == "__main__":
    sys.exit(main())
