"""UperNet on ADE20K by MMSegmentation's recipe, standard or adversarial from a robust backbone (PIR-AT).

VMamba (arXiv 2401.10166), table of ADE20K; PIR-AT: Croce et al. 2024 (arXiv 2306.12941), section 4.

    python -m experiments.train --config configs/ade20k.py --workdir runs/ade20k --config.data.root=DIR --config.init.checkpoint=vmamba_tiny@FILE.pth
    python -m experiments.train --config configs/ade20k.py:objective=pir_at --workdir runs/ade20k_at --config.data.root=DIR --config.init.checkpoint=runs/robust

160,000 steps of 16 images. Published for VMamba-T: 47.9 mIoU, whole images at a single scale; the validation here is on center squares of 512 pixels, so its
figures differ. Not run here: it needs ADE20K and accelerators. Besides the resize's filter (see `data.transforms.joint`) the recipe is the released one.
"""
from configs import base

IMAGES, STEPS = 20_210, 160_000
EPS = 4 / 255
SETTINGS = {  # objective: learning rate, weight decay, attack
    "standard": (6e-5, 0.01, {}),
    "pir_at": (1e-4, 0.01, {"name": "dense_pgd", "eps": EPS, "steps": 5, "step_size": 2.5 * EPS / 5})}
DROP_PATH = {"vmamba_tiny": 0.2, "vmamba_small": 0.3, "vmamba_base": 0.6, "swin_tiny": 0.2, "convnext_tiny": 0.4}


def get_config(arg=None):
    """Axes: `model=` a backbone of `DROP_PATH`; `objective=standard` or `objective=pir_at`."""
    arg = base.parse_arg(arg, model="vmamba_tiny", objective="standard")
    rate, decay, attack = base.choose("objective", arg["objective"], SETTINGS)
    drop_path = base.choose("model", arg["model"], DROP_PATH)
    config = base.run()
    config.batch_size = 16
    config.epochs = round(STEPS / (IMAGES // config.batch_size))
    config.data.update(name="ade20k", options={"size": 512})
    config.transform = {"name": "segmentation", "size": 512, "scale": (2048, 512)}
    config.loader.workers = 8
    config.model = {"name": f"upernet_{arg['model']}", "overrides": {"backbone": {"drop_path_rate": drop_path}}}
    config.preprocessing = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    config.objective.update({"name": "segmentation", "auxiliary": 0.4, "attack": attack})
    config.optimizer.update(weight_decay=decay, decay_rule="norms")
    config.schedule.update(name="linear", learning_rate=rate, warmup=1500 / STEPS, warmup_start=1e-6 * rate)
    config.validation.update(every_epochs=13, limit=500, select="mIoU" if arg["objective"] == "standard" else "robust_mIoU",
                             attack={"name": "dense_pgd", "eps": EPS, "steps": 5, "step_size": 2.5 * EPS / 5})
    config.evaluation.batch_size = 16
    return config
