"""SS2D: a selective scan over four directions of a feature map.

Source: VMamba (Liu et al., arXiv 2401.10166), section 4.2.
"""
import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

import pallas_kernels
from pallas_kernels.arguments import step_size
from vmamba_jax.core import checks, scan_orders
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.adaptive_scaling import ALIASES, SCALINGS, scaled
from vmamba_jax.models.layers.common import DepthwiseConv, LayerNorm, WidthField, activation, dense, fields_of, standardize, uniform
from vmamba_jax.models.layers.selective_ssm import scan, scan_of_decays, step_bias
from vmamba_jax.models.vmamba import scan_layouts

DIRECTIONS = len(scan_orders.DIRECTIONS)
OUT_NORMS = ("layer_norm", "none", "sigmoid", "softmax", "dwconv3", "layer_norm_dwconv3")
SSM_INITS = ("v0", "v1", "v2")
SSMS = ("mamba1", "mamba2")


@dataclasses.dataclass(repr=False, eq=False)
class SSMFields:
    """Fields of a VMamba mixer. `SS2D`, `VSSBlock` and `VMamba` inherit them and pass them on with `ssm_fields`.

    Attributes:
        ssm: "mamba1" (a decay per channel and state, a step size of rank `dt_rank`) or "mamba2" (one decay and step size per head, `dt_rank`
            heads).
        d_state: N, states per channel.
        ssm_ratio: inner width E = int(ssm_ratio * C).
        dt_rank: R; None: ceil(C / 16), of the block's width and not of the inner one.
        ssm_act: activation after the depth-wise convolution, and of the gate.
        conv_size: odd kernel of the depth-wise convolution; below 2: no convolution, the activation stays.
        conv_bias: bias of that convolution.
        gate: multiply the normalized scan by act(z), where z is the second half of the input projection.
        gate_act: False: multiply by z itself.
        out_act: exact GELU after the output norm, before the gate.
        out_norm: one of OUT_NORMS, over the inner channels; "softmax" runs over all positions, per channel.
        scan_pattern: "cross", "unidi", "bidi", "cascade", "snake", "random", or any order of the positions (see `core.scan_orders.routes`).
        ssm_init: initial values of the scan's parameters, "v0" (Mamba's), "v1" or "v2".
        ads: what is applied to the merged scan's output before the output norm, one of `adaptive_scaling.SCALINGS`; "none" as released.
        stop_gradients: names of `probes.STOPPABLE` whose gradients are blocked; the forward pass stays bit-identical.
        perturbed: names of `probes.SS2D_STATES` that get `perturbations`.
        scan_implementation: `implementation` of `pallas_kernels.selective_scan`.
        dtype: compute dtype (None: that of the input and parameters); the scan and the output norm run in at least float32.
        param_dtype: dtype of the parameters.
    """
    ssm: str = "mamba1"
    d_state: int = 1
    ssm_ratio: float = 1.0
    dt_rank: int | None = None
    ssm_act: str = "silu"
    conv_size: int = 3
    conv_bias: bool = False
    gate: bool = False
    gate_act: bool = True
    out_act: bool = False
    out_norm: str = "layer_norm"
    scan_pattern: str | tuple | Callable = "cross"
    ssm_init: str = "v0"
    ads: str = "none"
    stop_gradients: tuple = ()
    perturbed: tuple = ()
    scan_implementation: str | None = None
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    def ssm_fields(self):
        """{name: value} of the fields above, for a submodule that inherits them."""
        return fields_of(SSMFields, self)


class SS2D(SSMFields, WidthField, nn.Module):
    """Mixer of a VMamba block: (b, H, W, C) -> (b, H, W, C), for any H, W and C.

    Its fields are `width`, the first, and those of `SSMFields`; all have defaults.
    """

    @nn.compact
    def __call__(self, x):
        self.check_width(x, ("batch", "height", "width", "channels"))
        channels = x.shape[-1]
        inner = int(self.ssm_ratio * channels)
        rank = math.ceil(channels / 16) if self.dt_rank is None else self.dt_rank
        self._check(channels, inner, rank)
        act = activation(self.ssm_act)
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)

        x = dense(inner * (1 + self.gate), use_bias=False, name="in_proj", **options)(x)
        if self.gate:
            x, z = jnp.split(x, 2, axis=-1)
            z = probes.probe(self, "z", z)
        x = probes.probe(self, "x", x)
        if self.conv_size > 1:
            x = DepthwiseConv(self.conv_size, self.conv_bias, name="conv2d", **options)(x)
        u = probes.probe(self, "c", act(x))

        parameters = self._parameters(inner, rank)
        probes.record(self, "A", parameters[3])
        probes.record(self, "D", parameters[4])
        y = self._scan(u, parameters)
        probes.component(self, "scan", u, y)
        y = self._normalize(scaled(self, self.ads, y)).astype(u.dtype)
        if self.out_act:
            y = activation("gelu")(y)
        if self.gate:
            y = y * (act(z) if self.gate_act else z)
        out = dense(channels, use_bias=False, name="out_proj", **options)(y)
        probes.component(self, "linear", y, out)
        return probes.probe(self, "y", out)

    def _check(self, channels, inner, rank):
        probes.check_names("stop_gradients", self.stop_gradients, probes.STOPPABLE)
        probes.check_names("perturbed", self.perturbed, probes.SS2D_STATES)
        for field, value, known in (("ssm", self.ssm, SSMS), ("out_norm", self.out_norm, OUT_NORMS), ("ssm_init", self.ssm_init, SSM_INITS),
                                    ("ads", ALIASES.get(self.ads, self.ads), SCALINGS)):
            checks.choice(field, value, known)
        if self.conv_size > 1 and self.conv_size % 2 == 0:
            raise ValueError(f"conv_size={self.conv_size}: expected an odd size, or below 2 for no convolution")
        if inner < 1 or self.d_state < 1 or rank < 1:
            raise ValueError(f"ssm_ratio={self.ssm_ratio}, d_state={self.d_state}, dt_rank={rank}: expected an inner width, states and a rank "
                             f"of at least 1 at width {channels}")
        if self.ssm == "mamba2" and inner % rank:
            raise ValueError(f"dt_rank={rank}: expected a number of heads that divides the inner width {inner} with ssm='mamba2'")
        per_direction = [name for name in ("B", "C", "delta", "A_bar", "s") if name in self.perturbed]
        if per_direction and self.scan_pattern == "cascade":
            raise ValueError(f"perturbed={tuple(self.perturbed)}: expected only x, z, c, y with scan_pattern='cascade', which has two sets of the others")

    # ---- parameters, under their original names and shapes

    def _parameters(self, inner, rank):
        """Scan parameters of all directions: X (K, R + 2N, E), W (K, E, R) or None, bias (K, E), A (K, E, N), D (K, E)."""
        K, N = DIRECTIONS, self.d_state
        param = lambda name, init, shape: self.param(name, init, shape, self.param_dtype)
        X = param("x_proj_weight", uniform(inner**-0.5), (K, rank + 2 * N, inner))
        if self.ssm == "mamba2":
            head = inner // rank
            spread = lambda x: jnp.repeat(x, head, axis=-1)
            bias = spread(param("dt_projs_bias", self._bias_init(), (K, rank)))
            logs = spread(param("A_logs", self._logs_init(), (K, rank)))
            A = jnp.broadcast_to(-jnp.exp(logs)[..., None], (K, inner, N))
            return X, None, bias, A, param("Ds", nn.initializers.ones, (K, rank, head)).reshape(K, inner)
        weight_init = {"v0": uniform(rank**-0.5), "v1": nn.initializers.normal(0.1), "v2": nn.initializers.uniform(0.1)}[self.ssm_init]
        W = param("dt_projs_weight", weight_init, (K, inner, rank))
        bias = param("dt_projs_bias", self._bias_init(), (K, inner))
        A = -jnp.exp(param("A_logs", self._logs_init(), (K * inner, N))).reshape(K, inner, N)
        return X, W, bias, A, param("Ds", nn.initializers.ones, (K * inner,)).reshape(K, inner)

    def _bias_init(self):
        return {"v0": step_bias, "v1": nn.initializers.normal(0.1), "v2": nn.initializers.uniform(0.1)}[self.ssm_init]

    def _logs_init(self):
        def log_range(key, shape, dtype):
            del key
            counts = np.arange(1, shape[-1] + 1) if self.ssm == "mamba1" else np.ones(shape[-1])
            return jnp.broadcast_to(jnp.log(jnp.asarray(counts, dtype)), shape)
        return {"v0": log_range, "v1": nn.initializers.normal(1.0), "v2": nn.initializers.zeros}[self.ssm_init]

    # ---- the scan

    def _scan(self, u, parameters):
        """(b, H, W, E) -> sum of the directions' scans, (b, H, W, E)."""
        height, width = u.shape[1:3]
        if self._is_plain_cross_scan():
            return self._cross_scan(u, parameters)
        if self.scan_pattern != "cascade":
            return self._merge(u, scan_layouts.layouts(self.scan_pattern, height, width), parameters)
        for lines in scan_layouts.cascade(height, width):
            u = self._merge(standardize(u), (lines,), parameters)
        return u

    def _is_plain_cross_scan(self):
        """Whether the kernels' cross scan serves: no state inside a direction is recorded, perturbed or cut."""
        inside = ("B", "C", "delta", "A_bar", "s")
        return (isinstance(self.scan_pattern, str) and self.scan_pattern == "cross" and self.ssm == "mamba1"
                and not any(probes.observed(self, name) for name in inside) and not {*inside, "B_bar_delta"} & set(self.stop_gradients))

    def _cross_scan(self, u, parameters):
        """All four directions by `pallas_kernels.cross_selective_scan`."""
        X, W, bias, A, D = parameters
        v, X, W = nn.dtypes.promote_dtype(u, X, W, dtype=self.dtype)
        p = (v @ X.reshape(-1, X.shape[-1]).T).reshape(*u.shape[:3], DIRECTIONS, -1)
        steps, B, C = jnp.split(p, [W.shape[-1], W.shape[-1] + self.d_state], axis=-1)
        return pallas_kernels.cross_selective_scan(u, steps, W, A, B, C, D, bias, implementation=self.scan_implementation)

    def _merge(self, u, layouts, parameters):
        """Scan u along every direction of the layouts and sum the outputs."""
        steps, decays, B, C = self._project(u, parameters, [k for layout in layouts for k, _ in layout.directions])
        merged, by_direction = 0, {}
        for layout in layouts:
            sequence, outputs = layout.sequence(u), {}
            for k, reverse in layout.directions:
                y = self._direction(sequence, layout.sequence(steps[k]), decays and layout.sequence(decays[k]), layout.sequence(B[k]),
                                    layout.sequence(C[k]), k, reverse, parameters)
                outputs[reverse] = outputs[reverse] + y if reverse in outputs else y
                if probes.observed(self, "s"):
                    by_direction[k] = layout.map(y, reverse)
            if isinstance(layout, scan_layouts.Layout):
                outputs = {False: sum(outputs.values())}    # both have the layout's order, so one map() serves both
            merged = merged + sum(layout.map(y, reverse) for reverse, y in outputs.items())
        if by_direction:
            s = self._probe_all("s", dict(sorted(by_direction.items())))
            merged = sum(s.values()) if "s" in self.perturbed else merged
        return merged

    def _project(self, u, parameters, ks):
        """Step sizes, decays, B and C of directions ks from one projection of the raster map: dicts of maps by direction.

        A step size is (b, H, W, R), before its own projection; or (b, H, W, E), after softplus, if delta or A_bar is perturbed. The decays are
        None unless A_bar is perturbed.
        """
        X, _, _, A, _ = parameters
        ks = sorted(ks)
        u, X = nn.dtypes.promote_dtype(u, X if len(ks) == DIRECTIONS else X[jnp.array(ks)], dtype=self.dtype)
        width, rank = X.shape[1], X.shape[1] - 2 * self.d_state
        p = u @ X.reshape(-1, X.shape[-1]).T
        cut = lambda start, stop: {k: p[..., i * width + start:i * width + stop] for i, k in enumerate(ks)}
        steps = cut(0, rank)
        B = self._probe_all("B", cut(rank, rank + self.d_state))
        C = self._probe_all("C", cut(rank + self.d_state, width))
        decays = None
        if probes.observed(self, "delta") or probes.observed(self, "A_bar"):
            delta = self._probe_all("delta", {k: self._step_size(steps[k], k, parameters) for k in ks})
            decay = lambda k: jnp.exp(delta[k][..., None] * A[k].astype(delta[k].dtype))
            A_bar = self._probe_all("A_bar", {k: decay(k) for k in ks})
            if "A_bar" in self.perturbed:
                decays = {k: x.reshape(*x.shape[:3], -1) for k, x in A_bar.items()}
            if self._perturbs_step():
                steps = delta
        return steps, decays, B, C

    def _probe_all(self, name, maps):
        """`probes.probe_all` of a dict by direction."""
        return dict(zip(maps, probes.probe_all(self, name, list(maps.values())), strict=True))

    def _perturbs_step(self):
        return "delta" in self.perturbed or "A_bar" in self.perturbed

    def _raw_step(self, steps, k, parameters):
        """(..., R) -> (..., E): the step size of direction k before bias and softplus."""
        W = parameters[1]
        if W is None:
            return jnp.repeat(steps, parameters[0].shape[-1] // steps.shape[-1], axis=-1)
        steps, W = nn.dtypes.promote_dtype(steps, W[k], dtype=self.dtype)
        return steps @ W.T

    def _step_size(self, steps, k, parameters):
        raw = self._raw_step(steps, k, parameters)
        return step_size(raw.astype(jnp.promote_types(raw.dtype, jnp.float32)), parameters[2][k], True)

    def _direction(self, u, steps, decay, B, C, k, reverse, parameters):
        """Direction k's scan of the sequence u (b, L, E), with its D skip."""
        _, _, bias, A, D = parameters
        options = dict(reverse=reverse, implementation=self.scan_implementation)
        if decay is not None:
            return scan_of_decays(u, steps, decay.reshape(*u.shape, self.d_state), B, C, D[k], **options)
        if self._perturbs_step():
            return pallas_kernels.selective_scan(u, steps, A[k], B[:, :, None], C[:, :, None], D[k], delta_softplus=False, **options)
        return scan(u, self._raw_step(steps, k, parameters), A[k], B, C, D[k], bias[k], stop_gradients=self.stop_gradients, **options)

    # ---- after the scan

    def _normalize(self, y):
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        dwconv = lambda y: DepthwiseConv(3, use_bias=False, name="out_norm_conv", **options)(y)
        match self.out_norm:
            case "layer_norm":
                return LayerNorm(param_dtype=self.param_dtype, name="out_norm")(y)
            case "layer_norm_dwconv3":
                return dwconv(LayerNorm(param_dtype=self.param_dtype, name="out_norm")(y))
            case "dwconv3":
                return dwconv(y)
            case "sigmoid":
                return jax.nn.sigmoid(y)
            case "softmax":
                return jax.nn.softmax(y, axis=(1, 2))
        return y
