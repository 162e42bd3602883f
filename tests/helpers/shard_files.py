"""Small sets as shards: webdataset tars, TFRecord files and ArrayRecord files of the same images."""
import io
import pathlib
import struct
import tarfile

import numpy as np
from PIL import Image

from vmamba_jax.core import crc32c
from vmamba_jax.data.shards import examples


def pictures(n=12, classes=3, side=8):
    """[(uint8 (side, side, 3), label)]."""
    images = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), np.uint8)
    return [(image, i % classes) for i, image in enumerate(images)]


def png(image):
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def tar(path, members):
    """A tar file of [(name, bytes)]."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def samples(part, start=0):
    return [member for i, (image, label) in enumerate(part, start)
            for member in ((f"{i:05}.png", png(image)), (f"{i:05}.cls", str(label).encode()), (f"{i:05}.json", b'{"label": %d}' % (label + 1)))]


def tfrecord(path, messages):
    with open(path, "wb") as file:
        for message in messages:
            head = struct.pack("<Q", len(message))
            file.write(head + struct.pack("<I", crc32c.masked(head)) + message + struct.pack("<I", crc32c.masked(message)))


def array_record(path, messages):
    from array_record.python.array_record_module import ArrayRecordWriter
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for message in messages:
        writer.write(message)
    writer.close()


def messages(part, image_key, label_key):
    return [examples.serialize({image_key: png(image), label_key: label}) for image, label in part]


def write(form, folder, found, shards=3, split="train"):
    """Write a set as shards of a format; returns their paths."""
    folder, paths, step = pathlib.Path(folder), [], -(-len(found) // shards)
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(shards):
        part = found[k * step:(k + 1) * step]
        if form == "webdataset":
            paths.append(folder / f"{split}-{k:03}.tar")
            tar(paths[-1], samples(part, k * step))
        elif form == "tfrecord":
            paths.append(folder / f"{split}-{k:05}-of-{shards:05}")
            tfrecord(paths[-1], messages(part, "image/encoded", "image/class/label"))
        else:
            paths.append(folder / f"set-{split}.array_record-{k:05}-of-{shards:05}")
            array_record(paths[-1], messages(part, "image", "label"))
    return paths
