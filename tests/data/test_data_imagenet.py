"""ImageNet's class list, and photos cut to the pixel as the released pipelines cut them."""
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from vmamba_jax.data.datasets import imagenet
from vmamba_jax.data.decoding.images import Decoder


def test_classes():
    classes = imagenet.classes()
    wordnet = [identifier for identifier, _ in classes]
    assert len(classes) == 1000 and wordnet == sorted(wordnet) and len(set(wordnet)) == 1000
    assert classes[0] == ("n01440764", "tench, Tinca tinca") and classes[999][0] == "n15075141"
    assert imagenet.classes()[243][1] == "bull mastiff" and imagenet.classes()[559] == ("n03376595", "folding chair")


@pytest.mark.parametrize("resize,size,interpolation", [(256, 224, "bicubic"), (248, 224, "bicubic"), (232, 224, "bilinear"), (33, 33, "bicubic")])
@pytest.mark.parametrize("shape", [(301, 400), (400, 301), (256, 257), (640, 427)])
def test_released_pipelines(resize, size, interpolation, shape):
    """Pillow's resize of the short side (the long one cut to an integer), then the crop at round((side - size) / 2), half to even."""
    photo = Image.fromarray(load_sample_image("china.jpg")).resize((shape[1], shape[0]))
    height, width = shape
    short, long = min(shape), max(shape)
    lengths = {short: resize, long: int(resize * long / short)}
    resized = photo.resize((lengths[width], lengths[height]), getattr(Image.Resampling, interpolation.upper()))
    top, left = (int(round((side - size) / 2.0)) for side in (resized.height, resized.width))
    wanted = np.asarray(resized)[top:top + size, left:left + size]
    np.testing.assert_array_equal(Decoder(size, resize, interpolation)(np.asarray(photo), "photo"), wanted)
