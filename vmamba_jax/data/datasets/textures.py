"""Noise that stands for the textures of photos, for sets that are rendered."""
import numpy as np


def textures(n, size, rng):
    """Colored noise of mean 0 whose amplitude falls with the frequency, as in natural images, (n, size, size, 3)."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(n, 4, size, size))) / frequency**1.2
    noise = np.fft.irfft2(spectrum, (size, size))
    noise /= noise.std((2, 3), keepdims=True)
    return 18 * noise[:, :1].transpose(0, 2, 3, 1) + 6 * noise[:, 1:].transpose(0, 2, 3, 1)
