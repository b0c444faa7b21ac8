"""Programs of ``torch.export`` and AOTInductor, run in a process that can import neither this package nor transformers.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from helpers import tiny_bert
from safetensors.torch import load_file, save_file
from small_classifier import small_model

from dendritic_bert import (
    DendriticBertConfig,
    DendriticBertForQuestionAnswering,
    DendriticBertForSequenceClassification,
)
from dendritic_bert.export import torch_program
from dendritic_bert.export.tables import make_tables, own_logits

ELSEWHERE = """
import sys
from pathlib import Path

sys.modules |= dict.fromkeys(["dendritic_bert", "transformers"])  # importing them raises ImportError
import torch
from safetensors.torch import load_file, save_file

for path in sorted(Path().glob("*.pt2")):
    if path.name.endswith(".aoti.pt2"):
        import torch._inductor
        program = torch._inductor.aoti_load_package(str(path))
        print(program.get_metadata()["labels"])
    else:
        extra = {"metadata.json": ""}
        program = torch.export.load(path, extra_files=extra).module()
        print(extra["metadata.json"])
    name = path.name.split(".")[0]
    with torch.no_grad():
        for number in range(3):
            inputs = load_file(f"{name}.{number}.in.safetensors")
            save_file({"logits": program(**inputs).contiguous()}, f"{name}.{number}.out.safetensors")
"""
SHAPES = [(1, 1), (3, 7), (2, 20)]


def inputs_of(rows: int, length: int, with_types: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows * length)
    lengths = torch.randint(length + 1, (rows, 1), generator=generator)
    inputs = {"input_ids": torch.randint(600, (rows, length), generator=generator),
              "attention_mask": (torch.arange(length) < lengths).long()}
    if with_types:
        inputs["token_type_ids"] = torch.randint(2, (rows, length), generator=generator)
    return inputs


def run_elsewhere(folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=folder, env=environment, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check(folder: Path, name: str, expected: list[torch.Tensor]) -> None:
    for number, logits in enumerate(expected):
        found = load_file(folder / f"{name}.{number}.out.safetensors")["logits"]
        torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)


def write_inputs(folder: Path, name: str, with_types: bool) -> list[dict[str, torch.Tensor]]:
    batches = [inputs_of(*shape, with_types) for shape in SHAPES]
    for number, batch in enumerate(batches):
        save_file(batch, folder / f"{name}.{number}.in.safetensors")
    return batches


def test_programs_without_the_package(tmp_path):
    """The fused op's logits of the same tables; with an encoder, those of the model."""
    tiny_bert(vocab_size=600).save_pretrained(tmp_path / "bert")
    encoder = DendriticBertForSequenceClassification.from_pretrained(tmp_path / "bert", dsn=False)
    tables = make_tables(small_model(head_hidden=4), "int8", False)
    modules = {"dsn": torch_program.PlainDsn(tables), "encoder": torch_program.PlainEncoder(encoder)}
    batches = {name: write_inputs(tmp_path, name, name == "encoder") for name in modules}
    for name, module in modules.items():
        program = torch_program.trace(module, name == "encoder", 20)
        assert not any("dendritic_bert" in str(node.target) for node in program.graph.nodes)
        torch_program.write_program(program, tmp_path / f"{name}.pt2", {"labels": name})
    assert [json.loads(line)["labels"] for line in run_elsewhere(tmp_path).splitlines()] == ["dsn", "encoder"]
    check(tmp_path, "dsn", [own_logits(tables, batch) for batch in batches["dsn"]])
    with torch.no_grad():
        check(tmp_path, "encoder", [encoder(**batch).logits for batch in batches["encoder"]])


@pytest.mark.parametrize("options", [{}, {"pooling": "sum_all"}, {"pooling": "mean_all", "head_hidden": 3}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_the_module_that_is_traced(options, dtype):
    tables = make_tables(small_model(**options), dtype, True)
    for shape in SHAPES:
        batch = inputs_of(*shape, True)
        torch.testing.assert_close(torch_program.PlainDsn(tables)(**batch), own_logits(tables, batch), rtol=1e-5,
                                   atol=1e-5)


def test_the_module_of_a_span():
    config = DendriticBertConfig(vocab_size=600, hidden_size=16, num_dendrites=1, head_hidden=3, initializer_range=1.0)
    model = DendriticBertForQuestionAnswering(config).eval()
    tables, batch = make_tables(model, "float32", True), inputs_of(3, 7, True)
    with torch.no_grad():
        expected = torch.stack(model(**batch).to_tuple(), dim=-1)
    torch.testing.assert_close(torch_program.PlainDsn(tables)(**batch), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(own_logits(tables, batch), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow(seconds=60)
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler")
def test_package_without_the_package(tmp_path):
    """It is built for every processor of the architecture: on x86-64, no instruction reads an AVX register."""
    tables = make_tables(small_model(), "int8", True)
    program = torch_program.trace(torch_program.PlainDsn(tables), True, 20)
    torch_program.write_package(program, tmp_path / "dsn.aoti.pt2", {"labels": "[]"}, native=False)
    batches = write_inputs(tmp_path, "dsn", True)
    assert run_elsewhere(tmp_path) == "[]\n"
    check(tmp_path, "dsn", [own_logits(tables, batch) for batch in batches])
    if os.uname().machine == "x86_64" and shutil.which("objdump"):
        with zipfile.ZipFile(tmp_path / "dsn.aoti.pt2") as archive:
            library, = (name for name in archive.namelist() if name.endswith(".so"))
            archive.extract(library, tmp_path)
        code = subprocess.run(["objdump", "-d", tmp_path / library], capture_output=True, text=True, check=True).stdout
        assert "%xmm" in code
        assert "%ymm" not in code
        assert "%zmm" not in code


def test_a_torch_that_compiles_for_this_processor_alone(monkeypatch, tmp_path):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(RuntimeError, match=r"compiles for the processor at hand alone: pass --native, or --f"):
        torch_program.write_package(None, tmp_path / "model.aoti.pt2", {}, native=False)
