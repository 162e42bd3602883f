"""Sets prepared by TensorFlow Datasets, read with `tfds.data_source`; neither TensorFlow nor a download is needed at run time."""
import dataclasses
import difflib
import functools

import numpy as np

from vmamba_jax.data.datasets.locate import DataNotFoundError
from vmamba_jax.data.decoding.images import BadImageError, Decoder
from vmamba_jax.data.source import Decoded, digest


def load(name, split, root=None, *, image_key="image", label_key="label", size=None, resize=None, interpolation="bicubic", exif=True,
         draft=None, workers=None):
    """One split of a TFDS set that was prepared as array_record or parquet (formats with random access).

    Args:
        name: as in TFDS, `set[/config][:version]`.
        split: one of the set's own split names, or a slice such as "train[:10%]".
        root: TFDS's data_dir; None: its default ($TFDS_DATA_DIR or ~/tensorflow_datasets).
        image_key, label_key: features with the image and the class.
        size, resize, interpolation, exif, draft: see `decoding.images.Decoder`.
        workers: decoding threads; None: one per processor.

    Raises:
        DataNotFoundError: a set that is not prepared there; the message says how to prepare it.
        ValueError: an unknown version, config, split or feature.
    """
    import tensorflow_datasets as tfds  # takes seconds to import
    if not isinstance(split, str):
        raise TypeError(f"split={split!r}: expected a str such as 'train'")
    decoder = Decoder(size, resize, interpolation, exif=exif, draft=draft)
    try:
        builder = tfds.builder(name, **({} if root is None else {"data_dir": root}))
    except tfds.core.DatasetNotFoundError:
        close = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=3)
        raise DataNotFoundError(f"name={name!r}: expected a set of TFDS, or one prepared in {_place(root)}. "
                                + (f"Close names: {', '.join(close)}." if close else "")) from None
    except AssertionError as error:  # raised by TFDS for an unknown version or config
        raise ValueError(f"name={name!r}: expected a set, config and version of TFDS ({error})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:  # of a damaged dataset_info.json or features.json
        raise ValueError(f"name={name!r}: expected a whole set of TFDS in {_place(root)}, but {error or type(error).__name__}") from error
    features = builder.info.features
    for argument, key in (("image_key", image_key), ("label_key", label_key)):
        if key not in features:
            raise ValueError(f"{argument}={key!r}: expected a feature of TFDS set {name!r}, one of {sorted(features)}")
    if not (isinstance(image := features[image_key], tfds.features.Image) and image.np_dtype == np.uint8):
        raise ValueError(f"image_key={image_key!r}: expected a uint8 image feature of TFDS set {name!r}, got {image}")
    if not isinstance(label := features[label_key], tfds.features.ClassLabel):
        raise ValueError(f"label_key={label_key!r}: expected a class label of TFDS set {name!r}, got {label}")
    ready = builder.is_prepared()
    if ready and not set(builder.info.available_file_formats()) & set(tfds.core.FileFormat.with_random_access()):
        raise ValueError(f"TFDS set {name!r} in {builder.data_dir} is stored as {builder.info.file_format.value}, which has no random "
                         f"access. {_how_to_prepare(name, root)}")
    # An unprepared set is readable only under tfds.testing.mock_data, whose fake images exist only decoded.
    decoders = {image_key: tfds.decode.SkipDecoding()} if ready else None
    try:
        examples = builder.as_data_source(split, decoders=decoders)
    except (NotImplementedError, FileNotFoundError):
        raise DataNotFoundError(f"TFDS set {name!r} is not prepared in {_place(root)}. {_how_to_prepare(name, root)}") from None
    except ValueError as error:
        raise ValueError(f"split={split!r}: expected one of {sorted(builder.info.splits)} of TFDS set {name!r}, or a slice") from error
    return Prepared(builder, examples, str(split), decoder, image_key, label_key, workers)


class Prepared(Decoded):
    """Examples of a prepared TFDS set; encoded images are read from their records and decoded by `decoder`."""

    def __init__(self, builder, examples, split, decoder, image_key, label_key, workers=None):
        image, label = builder.info.features[image_key], builder.info.features[label_key]
        decoder = dataclasses.replace(decoder, channels=1 if image.shape[-1] == 1 else 3)
        shape = image.shape if None not in image.shape and image.shape[-1] in (1, 3) else None
        super().__init__(f"tfds:{builder.info.full_name}", split, label.names, decoder, workers, shape)
        self.builder, self.examples, self.image_key, self.label_key = builder, examples, image_key, label_key

    def __len__(self):
        return len(self.examples)

    def _records(self, indices):
        examples = [(i, self._example(i)) for i in indices.tolist()]
        return [(x[self.image_key], i) for i, x in examples], [x[self.label_key] for _, x in examples]

    def _example(self, i):
        """Example i; BadImageError if its record is damaged or has a label that is none of the classes'."""
        where = f"{self.name} {self.split} example {i}"
        try:
            example = self.examples[i]
            image, label = example[self.image_key], int(example[self.label_key])
        except Exception as error:  # a damaged record can raise nearly anything
            raise BadImageError(f"{where}: expected a whole record, but {error or type(error).__name__}") from error
        if not 0 <= label < len(self.classes):
            raise BadImageError(f"{where}: expected a label from 0 to {len(self.classes) - 1}, got {label}")
        return {self.image_key: image, self.label_key: label}

    def _encoded(self, record):
        image, i = record
        return image, f"{self.name} {self.split} example {i}"

    @functools.cached_property
    def labels(self):
        """(n,) int32; the first access reads every record, without decoding the images."""
        labels = np.fromiter((self._example(i)[self.label_key] for i in range(len(self))), np.int32, len(self))
        labels.flags.writeable = False
        return labels

    @functools.cached_property
    def fingerprint(self):
        """SHA-256 of the set's full name, split, length, file names with sizes, and the decoding options; records are not read."""
        splits = self.builder.info.splits
        files = [(path.name, path.stat().length) for s in sorted(splits) for path in splits[s].filepaths]
        return digest(self.name, self.split, len(self), files, self.image_key, self.label_key, self.decoder)


def _place(root):
    return repr(str(root)) if root is not None else "TFDS's default folder ($TFDS_DATA_DIR or ~/tensorflow_datasets)"


def _how_to_prepare(name, root):
    where = "" if root is None else f", data_dir={str(root)!r}"
    return ("Prepare it once, in an environment that also has TensorFlow (pip install tensorflow-cpu): python -c \""
            f"import tensorflow_datasets as tfds; tfds.builder({name!r}{where}, file_format='array_record').download_and_prepare()\"; "
            "for sets it cannot download, TFDS says there which archives to put into downloads/manual. Then pass root=<that data_dir>.")
