"""Vim written plainly from its equations, and random variables for its tests."""
import jax
import jax.numpy as jnp
import numpy as np


def normal(shape, seed=1, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def random_variables(module, shape, dtype=np.float32):
    """Random variables, none at a special initial value."""
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), np.zeros(shape, dtype)))["params"]
    rng = np.random.default_rng(0)
    return {"params": jax.tree.map(lambda x: (0.3 * rng.standard_normal(x.shape)).astype(dtype), params)}


def apply(module, variables, x, **options):
    return jax.jit(lambda variables, x: module.apply(variables, x, **options))(variables, x)


def drawn(module, shape):
    """The module's initial parameters as NumPy arrays."""
    return jax.tree.map(np.asarray, jax.jit(module.init)(jax.random.key(0), np.zeros(shape, np.float32))["params"])


def explicit_mixer(params, u, stop=None):
    """Vim's mixer (divide_out) from its equations, the backward direction by flipping; `stop`, {name: bool}, applies plain stop_gradients."""
    cut = lambda name, value: value if stop is None else jnp.where(stop[name], jax.lax.stop_gradient(value), value)
    length, y = u.shape[1], 0
    x, z = jnp.split(u @ params["in_proj"]["kernel"], 2, axis=-1)
    for suffix in ("", "_b"):
        order = slice(None, None, -1 if suffix else 1)
        conv, dt = params[f"conv1d{suffix}"], params[f"dt_proj{suffix}"]
        padded = jnp.pad(cut("x", x)[:, order], ((0, 0), (3, 0), (0, 0)))
        c = cut("c", jax.nn.silu(sum(padded[:, i:i + length] * conv["kernel"][i, 0] for i in range(4)) + conv["bias"]))
        A = -jnp.exp(params[f"A{suffix}_log"])
        rank, N = len(dt["kernel"]), A.shape[1]
        p = c @ params[f"x_proj{suffix}"]["kernel"]
        delta = cut("delta", jax.nn.softplus(p[..., :rank] @ dt["kernel"] + dt["bias"]))
        B, C = cut("B", p[..., rank:rank + N]), cut("C", p[..., rank + N:])
        a = cut("A_bar", jnp.exp(delta[..., None] * A))
        inputs = cut("B_bar_delta", delta)[..., None] * B[:, :, None] * c[..., None]
        _, h = jax.lax.scan(lambda h, ab: (ab[0] * h + ab[1],) * 2, jnp.zeros_like(a[:, 0]), (a.swapaxes(0, 1), inputs.swapaxes(0, 1)))
        s = (h.swapaxes(0, 1) * C[:, :, None]).sum(-1) + params[f"D{suffix}"] * c
        y = y + (s * jax.nn.silu(cut("z", z)[:, order]))[:, order]
    return y / 2 @ params["out_proj"]["kernel"]


def explicit_vim(model, params, images):
    """The original program, which adds each residual one block later."""
    rms = lambda x, p: x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p["scale"]
    side, stride = model.patch_size, model.stride
    rows, columns = ((n - side) // stride + 1 for n in images.shape[1:3])
    patch = lambda i, j: images[:, i * stride:i * stride + side, j * stride:j * stride + side]
    embed = lambda x: jnp.einsum("bhwc,hwcd->bd", x, params["patch_embed"]["kernel"]) + params["patch_embed"]["bias"]
    tokens = [embed(patch(i, j)) for i in range(rows) for j in range(columns)]
    token = lambda name: jnp.broadcast_to(params[name][0], (len(images), model.embed_dim))
    M = len(tokens)
    match model.class_token:
        case "middle":
            tokens, read = tokens[:M // 2] + [token("cls_token")] + tokens[M // 2:], [M // 2]
        case "head":
            tokens, read = [token("cls_token"), *tokens], [0]
        case "double":
            tokens, read = [token("cls_token_head"), *tokens, token("cls_token_tail")], [0, -1]
        case "none":
            read = None
    h, r = jnp.stack(tokens, axis=1) + params.get("pos_embed", 0), None
    for i in range(model.depth):
        r = h if r is None else r + h
        h = explicit_mixer(params[f"layers_{i}"]["mixer"], rms(r, params[f"layers_{i}"]["norm"]))
    f = rms(r + h, params["norm_f"])
    if read is None and model.pool in ("last", "mean"):
        f = f[:, -1] if model.pool == "last" else f.mean(1)
    elif read:
        f = sum(f[:, p] for p in read) / len(read)
    logits = f @ params["head"]["kernel"] + params["head"]["bias"]
    return logits.max(1) if read is None and model.pool == "max" else logits
