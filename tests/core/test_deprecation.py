"""Old names are served for one release, with a warning that names the new one."""
import pytest

from experiments.common import build, cli
from vmamba_jax.core import deprecation


def test_moved_modules():
    from experiments import _build
    with pytest.warns(DeprecationWarning, match="experiments._cli.ConfigError is now experiments.common.cli.ConfigError; the old name will be removed"):
        from experiments._cli import ConfigError
    with pytest.warns(DeprecationWarning, match="_build.classifier is now"):
        assert _build.classifier is build.classifier
    assert ConfigError is cli.ConfigError
    with pytest.raises(AttributeError, match="nothing"):
        _build.nothing  # noqa: B018


def test_renamed():
    old = deprecation.renamed("here", {"Old": "experiments.common.cli:ConfigError"})
    with pytest.warns(DeprecationWarning, match="here.Old is now experiments.common.cli.ConfigError"):
        assert old("Old") is cli.ConfigError
    with pytest.raises(AttributeError, match="module 'here' has no attribute 'Older'"):
        old("Older")
