"""A backend that is added to a copy of the checkout as docs/adding_a_backend.md says joins the tests of the ops."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from helpers import REPOSITORY

MODULE = '''"""The backend "toy": the functions of the reference, registered as a backend's kernels are."""

import torch

from .. import reference, validation
from ..contract import ACTIVATIONS, PARAMETER_DTYPES, POOLINGS, TABLE_DTYPES, DsnHead, DsnTable
from .backend import Backend

TOKENS = ("attention_mask", "cu_seqlens", "token_type_ids", "position_ids")
library = torch.library.Library("dendritic_bert", "FRAGMENT")


def embed_pool(*arguments):
    parameters, tokens = arguments[:6], arguments[6:10]
    eps, pooling, p_embed, p_pool, seed, _ = arguments[10:]
    validation.check_embed_pool(*parameters, *tokens, POOLINGS[pooling])
    pooled = reference.embed_pool_ref(*parameters, **dict(zip(TOKENS, tokens)), eps=eps, pooling=POOLINGS[pooling],
                                      p_embed=p_embed, p_pool=p_pool, seed=seed)
    return pooled, pooled.new_empty(pooled.shape, dtype=torch.float32), pooled.new_empty(
        arguments[0].numel(), dtype=torch.float32)  # only a backward pass would read the last two


def prepared(arguments):
    input_ids, word, word_scale, context, eps, weight, bias, beta_bias, lateral, top, activation = arguments[:11]
    head = DsnHead(weight, bias, beta_bias, lateral, top, list(ACTIVATIONS)[activation])
    return input_ids, DsnTable(word, word_scale, context, eps), head


def dsn_logits(*arguments):
    tokens, pooling = arguments[11:15], POOLINGS[arguments[15]]
    validation.check_dsn_logits(*prepared(arguments), *tokens, pooling)
    return reference.dsn_logits_ref(*prepared(arguments), **dict(zip(TOKENS, tokens)), pooling=pooling)


def dsn_token_logits(*arguments):
    tokens = arguments[11:]
    validation.check_dsn_logits(*prepared(arguments), *tokens, "mean_masked")
    return reference.dsn_token_logits_ref(*prepared(arguments), **dict(zip(TOKENS, tokens)))


for function in (embed_pool, dsn_logits, dsn_token_logits):
    library.impl(f"{function.__name__}_toy", function, "CPU")
BACKEND = Backend(
    name="toy",
    device_type="cpu",
    table_dtypes={"embed_pool": PARAMETER_DTYPES, "dsn_logits": TABLE_DTYPES, "dsn_token_logits": TABLE_DTYPES},
    missing=None,
)
'''
LAST_OF_THE_LIST = '    "triton",\n'


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the package and its tests with one module and one line more."""
    copy = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "assets")
    for folder in ("dendritic_bert", "kernels", "tests"):
        shutil.copytree(REPOSITORY / folder, copy / folder, ignore=ignored)
    shutil.copy(REPOSITORY / "pyproject.toml", copy)
    (copy / "kernels" / "backends" / "toy.py").write_text(MODULE)
    listed = copy / "kernels" / "backends" / "__init__.py"
    text = listed.read_text()
    assert text.count(LAST_OF_THE_LIST) == 1
    listed.write_text(text.replace(LAST_OF_THE_LIST, f'{LAST_OF_THE_LIST}    "toy",\n'))
    return copy


def run(checkout, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    environment.pop("DENDRITIC_BERT_BACKEND", None)
    done = subprocess.run([sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def test_it_serves_where_it_is_asked_for(checkout):
    code = ("from dendritic_bert.kernels import backends\n"
            "import torch\n"
            "print(backends.BACKENDS, backends.availability()['toy'])\n"
            "print(backends.choose('toy', 'dsn_logits', 'cpu', torch.int8))\n"
            "print(backends.refusal('toy', 'dsn_logits_folded', 'cpu', torch.float32))\n"
            "print(backends.refusal('toy', 'embed_pool', 'cpu', torch.int8))\n"
            "print(backends.refusal('toy', 'embed_pool', 'cuda', torch.float32))\n")
    assert run(checkout, "-c", code).splitlines() == [
        "('cpu', 'cuda', 'triton', 'toy', 'reference') None", "toy",
        "the toy backend has no kernel for dsn_logits_folded",
        "the word table is torch.int8, the toy backend reads torch.float32, torch.bfloat16, torch.float16",
        "the tensors are on cuda, the toy backend reads memory on cpu"]


def test_it_joins_the_tests_of_the_ops(checkout):
    chosen = {"ops/test_dsn_logits.py": ["empty_row", "no_token", "ends", "nan", "lower_triangle"],
              "ops/test_dsn_token_logits.py": ["token_is_a_row", "masked_token", "index_outside"],
              "test_validation.py": ["two_layouts", "unknown_pooling", "does_not_fit", "several_bad_ids"]}
    names = " or ".join(name for of_file in chosen.values() for name in of_file)
    files = [f"tests/kernels/{file}" for file in chosen]
    said = run(checkout, "-m", "pytest", "-v", "-p", "no:cacheprovider", *files, "-k", f"toy and ({names})")
    for of_file in chosen.values():
        for name in of_file:
            assert re.search(rf"::test_\w*{name}\w*\[.*toy-cpu.*\] PASSED", said), name
