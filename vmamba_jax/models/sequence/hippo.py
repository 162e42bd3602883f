"""HiPPO-LegS in the diagonal-plus-low-rank form that S4, DSS and S5 start from.

Source: Gu et al., arXiv 2111.00396, appendix C; Smith et al., arXiv 2208.04933, section 3.
"""
import functools

import numpy as np


def legs(states):
    """A (N, N), B (N,) and P (N,) of HiPPO-LegS in float64; A + P P^T is normal.

    Source: Gu et al., arXiv 2111.00396, equation 2.
    """
    n = np.arange(states)
    roots = np.sqrt(2 * n + 1)
    A = -np.tril(np.outer(roots, roots), -1) - np.diag(n + 1.0)
    return A, roots, np.sqrt(n + 0.5)


@functools.cache
def normal_form(states):
    """Eigenvalues of A + P P^T in ascending order of their imaginary parts, and its unitary eigenvectors V: (N,), (N, N) complex128.

    The phase of an eigenvector is free. Its largest component is made real and negative, as the released code finds it for N = 8.
    """
    A, _, P = legs(states)
    normal = A + np.outer(P, P)
    imaginary, V = np.linalg.eigh(-1j * (normal - np.diag(np.diag(normal))))  # the symmetric part is -I/2
    largest = V[np.abs(V).argmax(0), np.arange(states)]
    return np.diag(normal).mean() + 1j * imaginary, -V * np.abs(largest) / largest


@functools.cache
def low_rank_form(states):
    """w, P, B, (N/2,) complex128 each, with A = V (diag(w) - P P*) V*: one eigenvalue of each conjugate pair, the one of negative imaginary part.

    Args:
        states: N, even.
    """
    w, V = normal_form(states)
    _, B, P = legs(states)
    half = states // 2
    return w[:half], (V.conj().T @ P)[:half], (V.conj().T @ B)[:half]


def pairs(x):
    """Complex (...,) as real (..., 2)."""
    return np.stack([np.real(x), np.imag(x)], -1)
