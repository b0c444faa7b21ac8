"""What the contract says once, and what the C++ and CUDA sources repeat because they cannot read it."""

import re

import pytest
import torch
from helpers import REPOSITORY

from dendritic_bert.kernels import backends, contract, registration

SOURCES = [path for path in sorted((REPOSITORY / "csrc").rglob("*")) if path.suffix in (".h", ".cuh", ".cpp", ".cu")]


def enumerators(name: str, extension: str) -> list[str]:
    """The names in ``enum class <name>`` of an extension's sources, in the order of their values."""
    found = [match for path in SOURCES if path.parent.name in (extension, "common")
             for match in re.findall(rf"enum class {name}\b[^{{]*{{([^}}]*)}}", path.read_text())]
    assert len(found) == 1, f"{extension} has {len(found)} enums named {name}"
    assert "=" not in found[0]
    return [name.strip() for name in found[0].split(",")]


@pytest.mark.parametrize("extension", ["cpu", "cuda"])
def test_the_sources_number_poolings_and_activations_alike(extension):
    assert enumerators("Pooling", extension) == list(contract.POOLINGS) == list(contract.POOLING_CODES)
    assert enumerators("Activation", extension) == list(contract.ACTIVATIONS) == list(contract.ACTIVATION_CODES)


def test_the_cpu_sources_number_word_gradients_alike():
    assert enumerators(r"Word(?:Grad|Gradient)", "cpu") == [
        code.name.lower() for code in sorted(contract.WordGrad)] == ["none", "dense", "sparse"]


@pytest.mark.parametrize("extension", ["cpu", "cuda"])
def test_the_sources_read_the_dtypes_that_the_backend_says(extension):
    served = backends.KERNEL_BACKENDS[extension].table_dtypes
    names = [str(dtype).removeprefix("torch.") for dtype in served["dsn_logits"]]
    types = enumerators("WordType", extension)
    assert len(types) >= len(names)
    assert all(name.startswith(word_type) for word_type, name in zip(types, names))
    assert set(served["embed_pool"]) <= set(served["dsn_logits"])


def test_every_backend_has_kernels_for_ops_that_exist():
    for name, backend in backends.KERNEL_BACKENDS.items():
        assert backend.name == name
        assert set(backend.table_dtypes) <= set(registration.SCHEMAS)
        assert all(set(dtypes) <= set(contract.TABLE_DTYPES) for dtypes in backend.table_dtypes.values())


def test_the_named_tuple_of_embed_pool_is_its_schema():
    for name in backends.KERNEL_BACKENDS:
        operator = registration.operator("embed_pool", name)
        assert [argument.name for argument in operator._schema.arguments] == list(
            registration.EmbedPoolArguments._fields)
        backward = registration.operator("embed_pool_backward", name)
        assert [result.name for result in backward._schema.returns] == list(registration.EmbedPoolGradients._fields)


@pytest.mark.parametrize(("outputs", "padded"), [(1, 4), (4, 4), (5, 8), (8, 8), (9, 16), (16, 16), (17, 32)])
def test_padded_outputs(outputs, padded):
    assert contract.padded_outputs(outputs) == padded


def test_row_scaled_dtypes_are_table_dtypes_that_hold_their_largest_value():
    for dtype, largest in contract.ROW_SCALED.items():
        assert dtype in contract.TABLE_DTYPES
        assert float(torch.tensor(largest).to(dtype)) == largest


def test_the_cpu_sources_have_the_constants_of_int8_windows():
    source = (REPOSITORY / "csrc" / "cpu" / "window_int8_arguments.h").read_text()
    found = dict(re.findall(r"(\w+) = ([\w() <]+)[,;]", source))
    assert contract.LONGEST_INT8_ROW == 2**20
    assert found["longest_int8_row"] == "int64_t(1) << 20"
    assert 2 ** int(found["gate_step_bits"]) == contract.GATE_STEPS
    assert int(found["activation_steps"]) == contract.ACTIVATION_STEPS
    assert float(found["gate_limit"]) == contract.GATE_LIMIT
    assert float(found["activation_limit"]) == contract.ACTIVATION_LIMIT
