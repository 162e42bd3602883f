"""Measure how fast one core reads sharded sets: images per second of processor time by format, read only, and decoded and cropped to 224 pixels.

    python -m experiments.shard_rates
    python -m experiments.shard_rates --images=2000 --out=shard_rates.json

The shards hold JPEG files of 500 x 375 pixels, cut from the two photos of scikit-learn, in a temporary folder. The rows "index" are the first opening,
which reads every shard once. `data.input_rate` measures a set of your own, also in a bucket.
"""
import io
import json
import pathlib
import struct
import tarfile
import tempfile
import time

import numpy as np
from absl import app, flags
from PIL import Image

PER_SHARD = 200
FORMATS = ("webdataset", "tfrecord", "array_record")


def measure(images):
    """[{"format", "what", "images_per_second"}] of this process, per second of processor time."""
    from vmamba_jax import data
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        photos = _photos(images)
        for form in FORMATS:
            _write(form, pathlib.Path(folder, form), photos)
            rows.append(_row(form, "index", images, lambda form=form: data.load(form, "train", pathlib.Path(folder, form))))
            source = data.load(form, "train", pathlib.Path(folder, form), workers=1)
            order = np.random.default_rng(0).permutation(images)
            rows.append(_row(form, "read", images, lambda source=source, order=order: [source._encoded(record) for record in source._records(order)[0]]))
            pipeline = data.Pipeline(source, 50, seed=0, transform=data.transforms.create("simple_crop", size=224), threads=1)
            rows.append(_row(form, "decoded, random crop to 224", images, lambda pipeline=pipeline: [pipeline[t] for t in range(images // 50)]))
    return rows


def _row(form, what, images, work):
    start = time.process_time()
    work()
    row = {"format": form, "what": what, "images_per_second": images / (time.process_time() - start)}
    print(f"{form:13} {what:28} {row['images_per_second']:10,.0f} images per second of one core", flush=True)
    return row


def _photos(n):
    """n encoded JPEG files, each another cut of a photo."""
    from sklearn.datasets import load_sample_images
    draw, photos, out = np.random.default_rng(0), [Image.fromarray(image) for image in load_sample_images().images], []
    for i in range(n):
        left, top = draw.integers(0, 140), draw.integers(0, 52)
        file = io.BytesIO()
        photos[i % 2].crop((left, top, left + 500, top + 375)).save(file, "JPEG", quality=90)
        out.append(file.getvalue())
    return out


def _write(form, folder, photos):
    from vmamba_jax.core import crc32c
    from vmamba_jax.data.shards import examples
    folder.mkdir()
    shards = -(-len(photos) // PER_SHARD)
    for k in range(shards):
        part = list(enumerate(photos))[k * PER_SHARD:(k + 1) * PER_SHARD]
        if form == "webdataset":
            with tarfile.open(folder / f"train-{k:05}.tar", "w") as archive:
                for i, photo in part:
                    for ending, content in (("jpg", photo), ("cls", str(i % 2).encode())):
                        info = tarfile.TarInfo(f"{i:06}.{ending}")
                        info.size = len(content)
                        archive.addfile(info, io.BytesIO(content))
        elif form == "tfrecord":
            with open(folder / f"train-{k:05}-of-{shards:05}", "wb") as file:
                for i, photo in part:
                    message = examples.serialize({"image/encoded": photo, "image/class/label": i % 2})
                    head = struct.pack("<Q", len(message))
                    file.write(head + struct.pack("<I", crc32c.masked(head)) + message + struct.pack("<I", crc32c.masked(message)))
        else:
            from array_record.python.array_record_module import ArrayRecordWriter
            writer = ArrayRecordWriter(str(folder / f"photos-train.array_record-{k:05}-of-{shards:05}"), "group_size:1")
            for i, photo in part:
                writer.write(examples.serialize({"image": photo, "label": i % 2}))
            writer.close()


def main(argv):
    del argv
    from experiments.common import environment
    rows = measure(flags.FLAGS.images)
    if flags.FLAGS.out:
        pathlib.Path(flags.FLAGS.out).write_text(json.dumps({"date": environment.now()[:10], "versions": environment.versions(), "records": rows}, indent=1) + "\n",
                                                 encoding="utf-8")


if __name__ == "__main__":
    flags.DEFINE_integer("images", 1000, "number of images, a multiple of 50", lower_bound=50)
    flags.DEFINE_string("out", "", "JSON file to write the table to")
    app.run(main)
