"""Parameters of the corruptions at severities 1 to 5: the released tables for images of 224, 64 and 32 pixels.

Source: Hendrycks & Dietterich, arXiv 1903.12261: make_imagenet_c.py (224), make_tinyimagenet_c.py (64), make_cifar_c.py (32).
"""
import numpy as np

from vmamba_jax.core import checks

TABLES = (224, 64, 32)
SEVERITIES = (1, 2, 3, 4, 5)
_BORDERS = ((45, 32), (119, 64))  # (largest side, table): geometric means of neighboring tables' sizes


def table_for(side):
    """The table whose size has the ratio nearest to 1 to `side` pixels: 32 up to 45, 64 up to 119, 224 above."""
    return next((table for last, table in _BORDERS if side <= last), 224)


def parameters(name, severity, table):
    """Arguments of a corruption at a severity (1 to 5), from the table of 224, 64 or 32. Raises ValueError."""
    checks.choice("name", name, _PARAMETERS)
    checks.choice("severity", severity, SEVERITIES)
    checks.choice("table", table, TABLES)
    return _PARAMETERS[name][table][severity - 1]


def _singles(**tables):
    return {int(name[1:]): tuple((value,) for value in values) for name, values in tables.items()}


def _zooms(*stops_and_steps):
    return tuple((tuple(np.arange(1, stop, step).tolist()),) for stop, step in stops_and_steps)


def _elastic(unit, *rows):
    return tuple(tuple(unit * value for value in row) for row in rows)


_SMALL_ZOOMS = _zooms((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))
_PARAMETERS = {
    "gaussian_noise": _singles(  # standard deviation
        t224=(0.08, 0.12, 0.18, 0.26, 0.38), t64=(0.04, 0.08, 0.12, 0.15, 0.18), t32=(0.04, 0.06, 0.08, 0.09, 0.1)),
    "shot_noise": _singles(  # photons at full brightness
        t224=(60, 25, 12, 5, 3), t64=(250, 100, 50, 30, 15), t32=(500, 250, 100, 75, 50)),
    "impulse_noise": _singles(  # fraction of the values replaced
        t224=(0.03, 0.06, 0.09, 0.17, 0.27), t64=(0.01, 0.02, 0.05, 0.08, 0.14), t32=(0.01, 0.02, 0.03, 0.05, 0.07)),
    "speckle_noise": _singles(  # standard deviation at full brightness
        t224=(0.15, 0.2, 0.35, 0.45, 0.6), t64=(0.15, 0.2, 0.25, 0.3, 0.35), t32=(0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian_blur": _singles(  # sigma
        t224=(1, 2, 3, 4, 6), t64=(0.5, 0.75, 1, 1.25, 1.5), t32=(0.4, 0.6, 0.7, 0.8, 1)),
    "defocus_blur": {  # radius, sigma of its smoothed edge
        224: ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        64: ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        32: ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))},
    "glass_blur": {  # sigma, farthest move, passes
        224: ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        64: ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        32: ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))},
    "motion_blur": {  # radius, sigma
        224: ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        64: ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        32: ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))},
    "zoom_blur": {  # factors
        224: _zooms((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)), 64: _SMALL_ZOOMS, 32: _SMALL_ZOOMS},
    "snow": {  # mean, deviation, zoom, threshold, blur radius, blur sigma, weight of the image
        224: ((0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
              (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55)),
        64: ((0.1, 0.2, 1, 0.6, 8, 3, 0.8), (0.1, 0.2, 1, 0.5, 10, 4, 0.8), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
             (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6)),
        32: ((0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
             (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8))},
    "frost": {  # weight of the image, of the frost
        224: ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        64: ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
        32: ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))},
    "fog": {  # strength, decay of the displacement from level to level
        224: ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        64: ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        32: ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))},
    "brightness": _singles(  # added to the value
        t224=(0.1, 0.2, 0.3, 0.4, 0.5), t64=(0.1, 0.2, 0.3, 0.4, 0.5), t32=(0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": _singles(  # factor about the mean
        t224=(0.4, 0.3, 0.2, 0.1, 0.05), t64=(0.4, 0.3, 0.2, 0.1, 0.05), t32=(0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": {  # strength and smoothness of the displacement, largest move of the affine map's corners, in pixels
        224: _elastic(244, (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
        64: _elastic(64, (0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)),
        32: _elastic(32, (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))},
    "pixelate": _singles(  # fraction of the resolution kept
        t224=(0.6, 0.5, 0.4, 0.3, 0.25), t64=(0.9, 0.8, 0.7, 0.6, 0.5), t32=(0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": _singles(  # quality
        t224=(25, 18, 15, 10, 7), t64=(65, 58, 50, 40, 25), t32=(80, 65, 58, 50, 40)),
    "spatter": {  # mean, deviation, blur, threshold, intensity (of water) or blur (of mud), 0 water or 1 mud
        224: ((0.65, 0.3, 4, 0.69, 0.6, 0), (0.65, 0.3, 3, 0.68, 0.6, 0), (0.65, 0.3, 2, 0.68, 0.5, 0),
              (0.65, 0.3, 1, 0.65, 1.5, 1), (0.67, 0.4, 1, 0.65, 1.5, 1)),
        64: ((0.62, 0.1, 0.7, 0.7, 0.6, 0), (0.65, 0.1, 0.8, 0.7, 0.6, 0), (0.65, 0.3, 1, 0.69, 0.6, 0),
             (0.65, 0.1, 0.7, 0.68, 0.6, 1), (0.65, 0.1, 0.5, 0.67, 0.6, 1)),
        32: ((0.62, 0.1, 0.7, 0.7, 0.5, 0), (0.65, 0.1, 0.8, 0.7, 0.5, 0), (0.65, 0.3, 1, 0.69, 0.5, 0),
             (0.65, 0.1, 0.7, 0.69, 0.6, 1), (0.65, 0.1, 0.5, 0.68, 0.6, 1))},
    "saturate": {  # factor and addition to the saturation
        224: ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        64: ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
        32: ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))},
}
