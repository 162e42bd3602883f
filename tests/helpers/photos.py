"""A folder of photo-like images in three classes: `python tests/helpers/photos.py DIR [--flat] [--images 30] [--side 96]`.

The images are crops of scikit-learn's two photographs: of a flower, and of a temple's roof and of the sky beside it. By default DIR gets train/ and
val/ (a fifth of the images); --flat writes DIR/<class>/ alone, without splits.
"""
import argparse
import pathlib

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

CLASSES = {"flower": ("flower.jpg", (60, 150, 360, 520)), "roof": ("china.jpg", (190, 60, 420, 600)), "sky": ("china.jpg", (0, 0, 130, 400))}


def write_photos(folder, *, flat=False, images=30, side=96, seed=0):
    """Write JPEG files into one folder per class; returns the folder.

    Args:
        folder: created if absent.
        flat: without folders of splits.
        images: number over all classes, in equal parts.
        side: of the square crops in pixels, at most 128.
        seed: of the crops, their brightness and their reflection.
    """
    folder, rng = pathlib.Path(folder), np.random.default_rng(seed)
    each = images // len(CLASSES)
    for name, (photo, (top, left, bottom, right)) in CLASSES.items():
        pixels = np.asarray(load_sample_image(photo), np.float32)[top:bottom, left:right]
        for i in range(each):
            split = () if flat else ("val",) if i < max(1, each // 5) else ("train",)
            path = folder.joinpath(*split, name, f"{name}_{i:03d}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            y, x = (rng.integers(0, size - side + 1) for size in pixels.shape[:2])
            crop = pixels[y:y + side, x:x + side] * rng.uniform(0.8, 1.2)
            crop = crop[:, ::-1] if rng.random() < 0.5 else crop
            Image.fromarray(np.clip(crop, 0, 255).astype(np.uint8)).save(path, quality=90)
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--flat", action="store_true", help="without train/ and val/")
    parser.add_argument("--images", type=int, default=30, help="number over all classes (default 30)")
    parser.add_argument("--side", type=int, default=96, help="height and width in pixels, at most 128 (default 96)")
    args = parser.parse_args()
    write_photos(args.folder, flat=args.flat, images=args.images, side=args.side)
    print(f"{args.folder}: {args.images // len(CLASSES)} images of each of {', '.join(CLASSES)}")


if __name__ == "__main__":
    main()
