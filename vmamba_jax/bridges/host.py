"""A classifier that runs on the host, outside JAX, as a function that JAX can compile and differentiate once."""
import jax
import jax.numpy as jnp
import numpy as np


class HostFunction:
    """Callable images (b, H, W, C) -> logits (b, classes) whose work is done by NumPy functions on the host.

    Every call inside a compiled program leaves the device, runs `forward` on a whole batch and comes back, and every gradient runs `vjp`: slow, and
    for attacks slower than a model in JAX by the time of the transfers. Under `jax.vmap` the batches are joined. Only reverse mode of first order
    is supported. Each device of a mesh calls the functions with its own rows, from threads of its own.

    Attributes:
        forward: NumPy images (n, H, W, C) float32 -> logits (n, classes) float32, the same for the same images.
        vjp: (images (n, H, W, C), cotangents of the logits (n, classes)) -> cotangents of the images (n, H, W, C), all float32.
    """

    def __init__(self, forward, vjp):
        self.forward, self.vjp = forward, vjp
        self._classes = {}
        self._call = _differentiable(self._forward, self._vjp, self._shape)

    def __call__(self, images):
        return self._call(jnp.asarray(images, jnp.float32))

    def _shape(self, images):
        """Shape and dtype of the logits; the first image shape is evaluated on one image of zeros."""
        shape = images.shape[1:]
        if shape not in self._classes:
            with jax.ensure_compile_time_eval():
                self._classes[shape] = self._forward(np.zeros((1, *shape), np.float32)).shape[-1]
        return jax.ShapeDtypeStruct((len(images), self._classes[shape]), jnp.float32)

    def _forward(self, images):
        flat = _rows(images, 3)
        logits = np.asarray(self.forward(flat))
        _check("forward", logits, len(flat), 2)
        return logits.reshape(*images.shape[:-3], -1)

    def _vjp(self, images, cotangents):
        flat = _rows(images, 3)
        gradient = np.asarray(self.vjp(flat, _rows(cotangents, 1)))
        _check("vjp", gradient, len(flat), 4)
        return gradient.reshape(images.shape)


def _differentiable(forward, vjp, shape):
    @jax.custom_vjp
    def call(images):
        return jax.pure_callback(forward, shape(images), images, vmap_method="broadcast_all")

    def backward(images, cotangents):
        like = jax.ShapeDtypeStruct(images.shape, jnp.float32)
        return jax.pure_callback(vjp, like, images, cotangents, vmap_method="broadcast_all"),

    call.defvjp(lambda images: (call(images), images), backward)
    return call


def _rows(x, kept):
    """A writable NumPy copy with all axes joined into one but the last `kept`."""
    return np.array(x, np.float32).reshape(-1, *x.shape[-kept:])


def _check(name, x, rows, axes):
    if x.ndim != axes or len(x) != rows or x.dtype != np.float32:
        raise ValueError(f"{name} returned {x.dtype}{x.shape}: expected float32 of {axes} axes and {rows} rows")
