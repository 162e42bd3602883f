"""Inspects and converts foreign weights from the command line, as `vmamba-jax inspect` and `vmamba-jax convert` do.

    python -m vmamba_jax.checkpoints inspect weights.pth
    python -m vmamba_jax.checkpoints convert weights.pth --model vmamba_tiny --out DIR [--override num_classes=10 ...] [--weights ema|raw] [--overwrite]
"""
import sys

from vmamba_jax.commands import weights
from vmamba_jax.core import command_line


def main(argv=None):
    """Run one command and return the exit status."""
    return command_line.run(app(), argv)


def app():
    """The `cyclopts.App` of both commands."""
    made = command_line.app("python -m vmamba_jax.checkpoints", "Reads PyTorch and safetensors weights, without PyTorch.")
    for command in (weights.inspect, weights.convert):
        made.command(command)
    return made


if __name__ == "__main__":
    sys.exit(main())
