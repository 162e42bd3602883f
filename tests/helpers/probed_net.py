"""A small Linen classifier of 8 x 8 gray images that names one state, for the correlation of states and their repair."""
import flax.linen as nn
import jax.numpy as jnp

from vmamba_jax.models import Classifier

CLASSES, CHANNELS = 3, 5


class ProbedNet(nn.Module):
    """Tokens of 2 x 2 pixels -> state s (b, 4, 4, 5), a nonlinear mean, logits.

    Attributes:
        named: give the state to `sow` too.
        flat: give the state as (b, 16, 5).
    """
    named: bool = True
    flat: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(len(x), 4, 2, 4, 2, -1).transpose(0, 1, 3, 2, 4, 5).reshape(len(x), 4, 4, -1)
        s = nn.Dense(CHANNELS, name="embed")(x)
        s = s.reshape(len(s), 16, CHANNELS) if self.flat else s
        s = self.perturb("s", s)
        if self.named:
            self.sow("intermediates", "s", s)
        return nn.Dense(CLASSES, name="head")(jnp.tanh(s).mean(tuple(range(1, s.ndim - 1))))


def classifier(**fields):
    return Classifier(ProbedNet(**fields), (0.5,), (0.25,))


def state_and_gradient(params, images, labels):
    """s (b, 4, 4, 5) and the gradient of each image's own logit, by hand."""
    x = (images - 0.5) / 0.25
    x = x.reshape(len(x), 4, 2, 4, 2, -1).transpose(0, 1, 3, 2, 4, 5).reshape(len(x), 4, 4, -1)
    s = x @ params["embed"]["kernel"] + params["embed"]["bias"]
    return s, (1 - jnp.tanh(s)**2) / 16 * params["head"]["kernel"].T[labels][:, None, None]
