"""Class names beside a run's weights."""
import pytest

from vmamba_jax import data


def test_names_are_read_as_they_were_saved(tmp_path):
    assert data.load_class_names(tmp_path) is None
    data.save_class_names(tmp_path, ["b", 7, "é"])
    assert data.load_class_names(tmp_path) == ("b", "7", "é")


@pytest.mark.parametrize("text", ["[]", "{}", '["a", "a"]', '["a", 1]', "3", "[", ""])
def test_damaged_names(tmp_path, text):
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(ValueError, match="classes.json: expected a JSON"):
        data.load_class_names(tmp_path)
