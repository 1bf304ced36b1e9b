"""YAML files and overrides: what they hold, and what they are refused for."""

import pytest

from implicit3dmm.errors import InputError
from implicit3dmm.yaml_files import apply_overrides, read_yaml


@pytest.fixture
def yaml_file(tmp_path):
    def write(text: str | bytes):
        path = tmp_path / "base.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_merge_keys_may_be_overruled(yaml_file):
    path = yaml_file("base: &base {a: 1, b: 2}\nother: {<<: *base, b: 3}\n")
    assert read_yaml(path)["other"] == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# only a remark\n", "the file is empty"),
        ("- 1\n- 2\n", "the file holds no keys"),
        ("corpus: a\nseed: 1\nseed: 2\n", "line 3: the key 'seed' is repeated"),
        ("corpus: a\ntraining: {lr: 1, lr: 2}\n", "line 2: the key 'lr' is repeated"),
        ("corpus: a: b\n", "line 1: mapping values are not allowed here"),
        ("corpus: a\n\tseed: 1\n", "line 2: while scanning for the next token found character"),
        ("corpus: [1, 2\n", "line 2: while parsing a flow sequence expected ',' or ']'"),
        ("corpus: *nothing\n", "line 1: found undefined alias"),
        ("corpus: 2026-13-45\n", "month must be in 1..12"),
        ("corpus: !!python/name:os.system\n", "line 1: could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "line 2: expected a single document in the stream but found another"),
        ("corpus: \x00", "unacceptable character #x0000"),
        (b"\xff\xfe\x00", "the file is not text"),
    ],
)
def test_a_file_that_is_no_yaml_mapping_is_refused_in_one_line(text, message, yaml_file):
    path = yaml_file(text)
    with pytest.raises(InputError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="Is a directory"):
        read_yaml(tmp_path)


def test_overrides_reach_into_the_mapping_and_leave_it_alone():
    mapping = {"corpus": "ci", "training": {"steps": 5, "lr": 0.1}}
    words = ["training.steps=7", "field.name=local", "field.blend.count=3", "seed=1", "seed=2"]
    assert apply_overrides(mapping, words) == {
        "corpus": "ci",
        "training": {"steps": 7, "lr": 0.1},
        "field": {"name": "local", "blend": {"count": 3}},
        "seed": 2,
    }
    assert mapping == {"corpus": "ci", "training": {"steps": 5, "lr": 0.1}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-2E3", -2e3),
        ("1.e5", 1e5),
        ("2000", 2000),
        ("null", None),
        ("true", True),
        ("a=b", "a=b"),
        ("1e4x", "1e4x"),
        ("'1e-4'", "1e-4"),
        ("[1e-4, 2]", [1e-4, 2]),
    ],
)
def test_override_values_are_yaml_and_plain_exponents(text, value):
    result = apply_overrides({}, [f"a.b={text}"])["a"]["b"]
    assert result == value
    assert type(result) is type(value)


def test_a_file_still_reads_a_plain_exponent_as_text(yaml_file):
    assert read_yaml(yaml_file("lr: 1e-4\n")) == {"lr": "1e-4"}


@pytest.mark.parametrize("word", ["training.steps", "=3", "a..b=1", ".a=1", "a.=1", "a=", "a= "])
def test_a_word_that_is_no_override_is_refused(word):
    with pytest.raises(InputError, match=r"is no override; expected key\.path=value"):
        apply_overrides({}, [word])


def test_an_override_cannot_lead_through_a_value():
    with pytest.raises(InputError, match=r"^training\.steps: the value 5 has no keys; cannot set 'x\.y'"):
        apply_overrides({"training": {"steps": 5}}, ["training.steps.x.y=1"])


def test_broken_yaml_in_an_override_names_the_word():
    with pytest.raises(InputError, match=r"^'a=\[1': line 1: "):
        apply_overrides({}, ["a=[1"])
