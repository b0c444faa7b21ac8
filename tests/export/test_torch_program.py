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
from windowed_models import KINDS, windowed_model

from dendritic_bert import (
    DendriticBertConfig,
    DendriticBertForQuestionAnswering,
    DendriticBertForSequenceClassification,
)
from dendritic_bert.export import torch_program
from dendritic_bert.export.tables import ExportTables, make_tables, own_logits, round_words

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
LONG_SHAPES = [(1, 1), (3, 7), (2, 900)]  # where there are no positions


def inputs_of(rows: int, length: int, with_types: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows * length)
    lengths = torch.randint(length + 1, (rows, 1), generator=generator)
    inputs = {"input_ids": torch.randint(600, (rows, length), generator=generator),
              "attention_mask": (torch.arange(length) < lengths).long()}
    if with_types:
        inputs["token_type_ids"] = torch.randint(2, (rows, length), generator=generator)
    return inputs


def rounded(model, dtype: str, with_types: bool) -> ExportTables:
    """The tables of the model, whose words are rounded as they are."""
    tables = make_tables(model, dtype, with_types)
    round_words(model, tables)
    return tables


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


def write_inputs(folder: Path, name: str, with_types: bool, shapes=SHAPES) -> list[dict[str, torch.Tensor]]:
    batches = [inputs_of(*shape, with_types) for shape in shapes]
    for number, batch in enumerate(batches):
        save_file(batch, folder / f"{name}.{number}.in.safetensors")
    return batches


def test_programs_without_the_package(tmp_path):
    """The fused ops' logits of the same words; with an encoder, those of the model."""
    tiny_bert(vocab_size=600).save_pretrained(tmp_path / "bert")
    encoder = DendriticBertForSequenceClassification.from_pretrained(tmp_path / "bert", dsn=False)
    models = {"dsn": small_model(head_hidden=4), "encoder": encoder, "windows": windowed_model(**KINDS["recipe"])}
    modules = {name: torch_program.PlainEncoder(model) if name == "encoder" else
               torch_program.PlainDsn(rounded(model, "int8", False)) for name, model in models.items()}
    batches = {name: write_inputs(tmp_path, name, name == "encoder", LONG_SHAPES if name == "windows" else SHAPES)
               for name in modules}
    for name, module in modules.items():
        program = torch_program.trace(module, name == "encoder", None if name == "windows" else 20)
        assert not any("dendritic_bert" in str(node.target) for node in program.graph.nodes)
        torch_program.write_program(program, tmp_path / f"{name}.pt2", {"labels": name})
    assert [json.loads(line)["labels"] for line in run_elsewhere(tmp_path).splitlines()] == sorted(models)
    for name, model in models.items():
        check(tmp_path, name, [own_logits(model, batch) for batch in batches[name]])


BAGS = {"mean": {}, "sum_all": {"pooling": "sum_all"}, "mean_all": {"pooling": "mean_all", "head_hidden": 3},
        "gate and positions": {"pooling": "gated_mean"}}


@pytest.mark.parametrize("name", [*BAGS, *KINDS])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_the_module_that_is_traced(name, dtype):
    model = small_model(**BAGS[name]) if name in BAGS else windowed_model(**KINDS[name])
    program = torch_program.PlainDsn(rounded(model, dtype, True))
    for shape in SHAPES if name in BAGS else LONG_SHAPES:
        batch = inputs_of(*shape, True)
        with torch.no_grad():
            torch.testing.assert_close(program(**batch), own_logits(model, batch), rtol=1e-5, atol=1e-5)


def test_the_module_of_a_span():
    config = DendriticBertConfig(vocab_size=600, hidden_size=16, num_dendrites=1, head_hidden=3, initializer_range=1.0)
    model = DendriticBertForQuestionAnswering(config).eval()
    tables, batch = make_tables(model, "float32", True), inputs_of(3, 7, True)
    with torch.no_grad():
        expected = torch.stack(model(**batch).to_tuple(), dim=-1)
        torch.testing.assert_close(torch_program.PlainDsn(tables)(**batch), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow(seconds=35)
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler")
def test_package_without_the_package(tmp_path):
    """It is built for every processor of the architecture: on x86-64, no instruction reads an AVX register."""
    model = windowed_model(**KINDS["wide"])
    program = torch_program.trace(torch_program.PlainDsn(rounded(model, "int8", True)), True, None)
    torch_program.write_package(program, tmp_path / "dsn.aoti.pt2", {"labels": "[]"}, native=False)
    batches = write_inputs(tmp_path, "dsn", True)
    assert run_elsewhere(tmp_path) == "[]\n"
    check(tmp_path, "dsn", [own_logits(model, batch) for batch in batches])
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
