"""Receptive fields, attention over photos and statistics of hidden states of any models, side by side on one page.

The analyses of VMamba (arXiv 2401.10166): effective receptive field, attention of the scan, activation maps; see docs/analysis.md.

    python -m experiments.analyze --config configs/analysis.py --config.data.root=photos --workdir runs/analysis
    python -m experiments.analyze --workdir runs/analysis --config.data.root=/data/imagenet --config \\
        configs/analysis.py:model=vmamba_tiny@vssm1_tiny_0230s_ckpt_epoch_264.pth+swin_tiny@swin_tiny.safetensors
    python -m experiments.analyze --config configs/analysis.py:model=runs/own,data=cifar10 --config.steps="('initial','all')" --workdir runs/own_seen

`model=` is a catalog name (random weights), a run's folder, a converted folder or NAME@FILE; + separates several. `data=folder` is class folders of
photos (ROOT/val/<class>/<photo>), each resized and cropped as the model's release; another data set by its name. The paper's fields are of 1024 x 1024
pixels, its attention of 512 x 512: `--config.data.options.size=1024 --config.data.options.resize=1024`. Cost on two CPU cores at 224 pixels: minutes
for each model of 20 to 30 million parameters.
"""
from configs import base

MODELS = "vmamba_tiny+vim_tiny+swin_tiny+convnext_tiny+resnet50+deit_small"


def get_config(arg=None):
    """Axes: `model=` (see above), `data=` a data set, `photos` and `images` (numbers), `split=`."""
    arg = base.parse_arg(arg, model=MODELS, data="folder", split="validation", photos=2, images=50)
    config = base.analysis()
    config.models = tuple(filter(None, arg["model"].split("+")))
    config.data.update(name=arg["data"], split=arg["split"], limit=max(arg["photos"], arg["images"]))
    if arg["data"] == "folder":
        config.data.options = {"exif": True}
    config.attention.photos = arg["photos"]
    config.receptive_field.images = config.statistics.images = arg["images"]
    return config
