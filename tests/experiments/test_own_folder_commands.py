"""The commands of docs/own_data.md, typed in their order on thirty small photos with a tiny model; `test_own_folder.py` has faster siblings."""
import json
import pathlib
import re
import shlex
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

import vmamba_jax
from tests.helpers.forked_programs import ROOT, run_programs
from vmamba_jax import checkpoints

PAGE = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
FIELDS = {"dims": (8, 16), "depths": (1, 1), "patch_size": 4, "drop_path_rate": 0.0, "num_classes": 1000}
TRAINED = [*(f"--config.model.overrides.{name}={value}" for name, value in FIELDS.items() if name != "num_classes"), "--config.epochs=6",
           "--config.validation.attack.steps=1", "--config.transform.scale=(0.9,1.0)"]
EVALUATED = ["--config.evaluation.attacks.pgd.steps=2"]


def typed(folder, released):
    """The page's commands as lists of arguments, with their files below `folder` and their models tiny."""
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            line = re.sub(r"\bruns/", f"{folder}/runs/", line).replace("vssm1_tiny_0230s_ckpt_epoch_264.pth", str(released))
            line = line.replace("=photos", f"={folder}/photos").replace("predict photos", f"predict {folder}/photos/val")
            line = re.sub(r"(folder\.py:\S+)", r"\1,size=32,batch=8", line)
            line = line.replace("probes=clean+attack+corruption", "pixels=32,probes=clean+fgsm+corruption_contrast").replace("names=all", "names=contrast+fog")
            python, flag, program, *words = shlex.split(line)
            assert (python, flag) == ("python", "-m")
            yield [program, *words, *(TRAINED if program.endswith("train") else EVALUATED if program.endswith("evaluate") else [])]


def test_the_page_has_the_whole_story():
    programs = [command[0] for command in typed("F", "R")]
    assert programs == ["experiments.train"] * 3 + ["experiments.evaluate"] * 3 + ["experiments.study", "vmamba_jax"]


@pytest.mark.slow
def test_commands_of_the_page(tmp_path):
    subprocess.run([sys.executable, "tests/helpers/photos.py", str(tmp_path / "photos"), "--side", "40"], cwd=ROOT, check=True, timeout=60)
    model = vmamba_jax.create_model("vmamba_tiny", **FIELDS)
    variables = jax.jit(lambda key: model.init(key, np.zeros((1, 32, 32, 3))))(jax.random.key(0))
    safetensors.numpy.save_file(checkpoints.to_state_dict(model, variables), tmp_path / "released.safetensors")
    said = {}
    for i, command in enumerate(typed(tmp_path, tmp_path / "released.safetensors")):
        [[status, output]] = run_programs([command])
        assert status == 0 and "Traceback" not in output, (command, output)
        said[i] = output
    runs = tmp_path / "runs"
    names = ["flower", "roof", "sky"]
    assert all(json.loads((runs / run / "classes.json").read_text()) == names for run in ("own", "tuned", "robust"))
    assert "3 classes (flower, roof, sky)" in said[0] and re.search(r"warm-up +\d+ updates", said[0]) and re.search(r"ramp +\d+ steps", said[2])
    assert "head: new, of 3 classes; the weights have 1000" in said[1], said[1]
    full = json.loads((runs / "robust" / "evaluation.json").read_text())
    assert "measured earlier, and not again: fgsm, pgd" in said[4] and {row["corruption"] for row in full["corruptions"]["rows"]} == {"contrast", "fog"}
    assert full["examples"] == 5 and full["calibration"]["ece"] >= 0 and "Corruptions" in (runs / "robust" / "report.html").read_text()
    only = json.loads((runs / "tuned" / "evaluation.json").read_text())
    assert only["attacks"] == {} and len(only["corruptions"]["rows"]) == 10
    study = json.loads((runs / "own_study" / "study.json").read_text())
    assert [line["status"] for line in study["cells"]] == ["done"] * 6 and [line["label"] for line in study["models"]] == ["tuned", "robust"]
    assert sum(name in said[7] for name in names) >= 1 and pathlib.Path(runs / "robust" / "training.html").is_file()
