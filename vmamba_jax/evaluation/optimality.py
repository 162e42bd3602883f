"""Quality of attacks by their optimality: how near the distances of their adversarial images come to the smallest that any attack found.

Source: Cina et al. 2024 (AttackBench), arXiv 2404.19460, section 3. Its program integrates the robust accuracy over the radius by trapezoids; here the
integral is that of the step function itself.
"""
import numpy as np


def distances(broken, radii, correct):
    """Distance of each image from misclassification, as an attack at several radii found it: (n,) floats.

    Args:
        broken: (len(radii), n) bool, whether the attack at a radius changed the prediction to a wrong one.
        radii: ascending, > 0.
        correct: (n,) bool, whether the image is classified correctly without an attack.

    Returns:
        0 for an image misclassified without an attack, the smallest radius at which the attack succeeded, or inf if it succeeded at none.
    """
    broken, radii, correct = np.asarray(broken, bool), np.asarray(radii, float), np.asarray(correct, bool)
    if broken.shape != (len(radii), len(correct)):
        raise ValueError(f"broken.shape={broken.shape}: expected ({len(radii)}, {len(correct)}), a row for each radius")
    if not len(radii) or (np.diff(radii, prepend=0) <= 0).any():
        raise ValueError(f"radii={radii.tolist()}: expected ascending numbers > 0")
    found = np.where(broken, radii[:, None], np.inf).min(0)
    return np.where(correct, found, 0.0)


def area(distance, limit):
    """Area under the curve of robust accuracy against the radius from 0 to `limit`: the mean of min(distance, limit)."""
    return float(np.minimum(np.asarray(distance, float), limit).mean())


def local_optimality(distance, best, limit):
    """Local optimality of an attack on one model, in [0, 1]: 1 if it is as good as the best distances, 0 if it breaks no image within the limit.

    1 - (A(attack) - A(best)) / (clean accuracy * limit - A(best)), with A the `area`.

    Args:
        distance: (n,) of the attack, see `distances`.
        best: (n,) the smallest distances that any attack found for the same images: at most `distance`.
        limit: largest radius, > 0.

    Returns:
        A float; 1 if no attack broke an image, as then none is better.

    Raises:
        ValueError: `best` above `distance` for an image.
    """
    distance, best = np.asarray(distance, float), np.asarray(best, float)
    if distance.shape != best.shape or (best > distance).any():
        raise ValueError("best: expected at most the attack's distance for each image")
    room = float((best > 0).mean()) * limit - area(best, limit)
    return 1.0 if room <= 0 else 1.0 - (area(distance, limit) - area(best, limit)) / room


def global_optimality(local):
    """Global optimality of an attack: the mean of its local optimality over models."""
    return float(np.mean(list(local)))
