"""Configs of the diagnostic sweeps: their groups, what they change, and equal multiply-adds where they claim them."""
import pytest

import vmamba_jax
from configs import resolution, scan_patterns
from experiments.sweeps import plan
from vmamba_jax.core import scan_orders

SIDES = {"digits": (8, 1), "cifar10": (32, 3)}


def cost(data, planned):
    side, channels = SIDES[data]
    model = vmamba_jax.create_model(planned.config.model.name, **planned.config.model.overrides.to_dict(), num_classes=10, in_channels=channels)
    return vmamba_jax.cost(model, side).flops


@pytest.mark.parametrize("data", ["digits", pytest.param("cifar10", marks=pytest.mark.slow)])
def test_states_at_equal_multiply_adds(data):
    runs = {each.group: each for each in plan.expand(scan_patterns.get_config(f"study=blocks,data={data},seeds=1"))}
    assert set(runs) == {"cross", "states_1", "states_4", "states_16", "deep", "act_gelu", "act_relu"}
    one = cost(data, runs["states_1"])
    for n in (4, 16):
        assert runs[f"states_{n}"].config.model.overrides.d_state == n and cost(data, runs[f"states_{n}"]) == pytest.approx(one, rel=0.02)


def test_patterns():
    runs = {each.group: each.config.model.overrides for each in plan.expand(scan_patterns.get_config("seeds=1"))}
    assert set(scan_patterns.PATTERNS) == set(scan_orders.PATTERNS) and len(runs) == 2 * len(scan_patterns.PATTERNS) + 2
    for name in scan_patterns.PATTERNS:
        assert runs[name].scan_pattern == runs[f"{name}_noconv"].scan_pattern == name
        assert "conv_size" not in runs[name] and runs[f"{name}_noconv"].conv_size < 2
    few = scan_patterns.get_config("groups=snake+random")
    assert set(few.runs) == {"snake", "random"} and few.control == "" and few.claims == ()
    with pytest.raises(ValueError, match="groups='spiral': expected one of cross"):
        scan_patterns.get_config("groups=spiral")


def test_resolutions():
    """Each size with the weights' own head, which does not move, and with a new one at the released learning rate."""
    planned = {each.group: each.config for each in plan.expand(resolution.get_config("weights=runs/a,data=imagenet"))}
    assert {(config.data.options.size, config.schedule.learning_rate) for name, config in planned.items() if "refit" in name} == {
        (224, 0.05), (288, 0.05), (384, 0.05), (512, 0.2), (640, 0.5), (768, 0.5)}
    for name, config in planned.items():
        refit = name.endswith("_refit")
        assert (config.init.checkpoint, config.init.freeze, config.optimizer.name) == ("runs/a", "backbone", "sgd")
        assert (config.init.head, config.epochs) == (("new", 30) if refit else ("keep", 1)) and bool(config.schedule.learning_rate) == refit
    assert planned["size_768"].data.options.resize == 877 and resolution.get_config().init.checkpoint == ""
