"""Pickles of arrays are read whole, whatever wrote them; what asks for more is refused and not run."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from implicit3dmm.data.plain_pickle import read_plain_pickle
from implicit3dmm.errors import InputError

VALUES = {
    "mean": np.arange(12.0).reshape(4, 3),
    "columns": np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)),
    "slice": np.arange(20, dtype=np.int32)[::3],
    "mask": np.array([True, False]),
    "scale": np.float64(1000.0),
    "nested": OrderedDict([(3, [1, 2, np.int64(3)]), ("b", (b"bytes", "text", None))]),
}


class Calls:
    """Pickles itself as the call of a function."""

    def __init__(self, function, *given):
        self.call = function, given

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_gives_the_values_back(protocol, tmp_path):
    path = tmp_path / "values.pickle"
    path.write_bytes(pickle.dumps(VALUES, protocol=protocol))
    found = read_plain_pickle(path)
    assert list(found) == list(VALUES)
    for name in ("mean", "columns", "slice", "mask"):
        np.testing.assert_array_equal(found[name], VALUES[name])
        assert found[name].dtype == VALUES[name].dtype.newbyteorder("=")
        assert found[name].flags.writeable
    assert found["scale"] == 1000.0
    assert found["nested"] == {3: [1, 2, 3], "b": (b"bytes", "text", None)}


def test_names_of_newer_numpy_are_those_of_older(tmp_path):
    path, stream = tmp_path / "values.pickle", pickle.dumps(np.arange(5), protocol=0)
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    for text in (stream.replace(new, old), stream.replace(old, new) if old in stream else stream):
        path.write_bytes(text)
        np.testing.assert_array_equal(read_plain_pickle(path), np.arange(5))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_calls_anything_is_refused_and_not_run(protocol, tmp_path):
    path, touched = tmp_path / "bad.pickle", tmp_path / "touched"
    path.write_bytes(pickle.dumps({0: [1], 1: Calls(os.system, f"touch {touched}")}, protocol=protocol))
    with pytest.raises(InputError, match=r"bad\.pickle asks for (posix|nt)\.system, .* was not run; save a mapping"):
        read_plain_pickle(path)
    assert not touched.exists()


@pytest.mark.parametrize("function", [eval, getattr, np.load, np.fromfile])
def test_functions_of_python_and_numpy_are_refused_too(function, tmp_path):
    path = tmp_path / "bad.pickle"
    path.write_bytes(pickle.dumps(Calls(function, "x")))
    with pytest.raises(InputError, match=r"asks for .*, which is no plain array or number"):
        read_plain_pickle(path)


def crafted(*opcodes: bytes) -> bytes:
    return b"\x80\x02" + b"".join(opcodes) + b"."


DTYPE = b"cnumpy\ndtype\n"
SCALAR = b"cnumpy.core.multiarray\nscalar\n"


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"no pickle",
        pickle.dumps(VALUES)[:-20],
        pickle.dumps(np.array([{}, None], dtype=object)),
        pickle.dumps(np.zeros(2, dtype="V8,i4")),
        crafted(b"]q\x00h\x00a"),  # a list that holds itself
        crafted(DTYPE, b"}X\x01\x00\x00\x00aK\x01sb"),  # a state for a name
        crafted(SCALAR, b"}X\x01\x00\x00\x00aK\x01sb"),
        crafted(DTYPE, b"X\x02\x00\x00\x00O8\x85R"),  # an array of objects
        crafted(DTYPE),  # a bare name
        crafted(b"X\x01\x00\x00\x00aQ"),  # a persistent name
        crafted(SCALAR, DTYPE, b"X\x02\x00\x00\x00f8\x85R", b"X\x01\x00\x00\x00a\x86R"),  # one byte of eight
    ],
    ids=range(12),
)
def test_what_is_damaged_or_odd_is_one_clear_line(stream, tmp_path):
    path = tmp_path / "odd.pickle"
    path.write_bytes(stream)
    with pytest.raises(InputError, match=r"odd\.pickle (is damaged or no pickle of plain arrays|asks for)"):
        read_plain_pickle(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none\.pickle: No such file"):
        read_plain_pickle(tmp_path / "none.pickle")
