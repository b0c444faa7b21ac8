"""`export`, and the one line that it says."""

import re

import pytest


def test_export(run, model_path, tmp_path):
    status, out, err = run("export", model_path, tmp_path / "onnx", "--dtype", "int8")
    assert (status, out) == (0, "")
    size = (tmp_path / "onnx" / "model.onnx").stat().st_size
    assert re.fullmatch(rf"dendritic-bert: {tmp_path}/onnx/model\.onnx: {size / 1e6:.2f} MB, logits at most "
                        r"\d\.\de-0[789] from the model's\n", err)
    status, _, err = run("export", model_path, tmp_path / "onnx")
    assert status == 1
    assert err.count("\n") == 1
    assert "holds something already" in err


@pytest.mark.parametrize("flag", ["--max-length", "--max_length"])
def test_max_length_is_for_the_engine(run, model_path, tmp_path, flag):
    status, _, err = run("export", model_path, tmp_path / "onnx", flag, 0)
    assert status == 2
    assert "'0' is not a whole number of at least 1" in err
    status, _, err = run("export", model_path, tmp_path / "onnx", flag, 8)
    assert status == 1
    assert 'max_length is 8, but only the format "engine" takes it' in err


def test_native_is_for_aoti(run, model_path, tmp_path):
    status, _, err = run("export", model_path, tmp_path / "onnx", "--native")
    assert status == 2
    assert "--native is for --format aoti, but the format is onnx" in err
