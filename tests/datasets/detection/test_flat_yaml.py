import pytest

from rotoscope.datasets.detection.flat_yaml import read_flat_yaml
from rotoscope.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("names: [a, 'b, c', \"d\"]", ["a", "b, c", "d"]),
        ("names: {0: a, 1: 'b'}", {"0": "a", "1": "b"}),
        ("names:\n  - a\n  - b c\n", ["a", "b c"]),
        ("names:\n- a\n- b\n", ["a", "b"]),
        ("names:\n  0: a  # the first\n  1: 'b # c'\n", {"0": "a", "1": "b # c"}),
        ("names: [a,\n  b]\n", ["a", "b"]),
        ("---\n# a comment\nnames: person\n", "person"),
    ],
)
def test_what_lists_of_classes_are_written_in_is_read(tmp_path, text, value):
    path = tmp_path / "data.yaml"
    path.write_text(text)
    assert read_flat_yaml(path) == {"names": value}


@pytest.mark.parametrize("text", ["just a text", "names: a\n  more: b", "names:\n  - a\n  b: c"])
def test_what_is_not_understood_is_refused_with_its_line(tmp_path, text):
    path = tmp_path / "data.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"line \d: "):
        read_flat_yaml(path)


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_flat_yaml(tmp_path / "data.yaml")
