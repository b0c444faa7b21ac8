"""What lies just outside the tables and the batch is not read; run by test_properties.py of the Triton backend."""

import pytest
import torch
from cases import VOCAB_SIZE, head, parameters, tokens

from dendritic_bert.kernels import ops
from dendritic_bert.kernels.prepare import prepare_head, prepare_table


@pytest.mark.parametrize(("name", "outside"), [("input_ids", VOCAB_SIZE), ("input_ids", -1), ("token_type_ids", 2),
                                               ("token_type_ids", -1), ("position_ids", 8), ("position_ids", -1)])
@pytest.mark.parametrize("op", ["dsn_logits", "dsn_token_logits", "embed_pool"], ids="{}-triton-cpu".format)
def test_an_index_just_outside_a_table_is_nan(op, name, outside):
    """The tables are parts of larger ones: what lies around them are numbers like any other."""
    inner = parameters(20)
    values = {key: torch.zeros(value.shape[0] + 2, *value.shape[1:])[1:-1].copy_(value) for key, value in inner.items()}
    arguments = tokens("padded", 4, 6, token_types=True, positions=True, num_positions=8)
    arguments["token_type_ids"][:] = 0 if outside > 0 else 1  # where the context's next or last row is another type's
    arguments[name][0, 3] = outside
    if op == "embed_pool":
        result = ops.embed_pool(**arguments, **values, backend="triton")
    else:
        prepared = prepare_table(*list(values.values())[:3])
        around = [torch.zeros(tensor.shape[0] + 2, *tensor.shape[1:]) for tensor in (prepared.word, prepared.context)]
        word, context = (wide[1:-1].copy_(tensor) for wide, tensor in zip(around, (prepared.word, prepared.context)))
        dsn_head = prepare_head(values["ln_weight"], values["ln_bias"], **head(20, 3, 1))
        result = getattr(ops, op)(**arguments, table=prepared._replace(word=word, context=context), head=dsn_head,
                                  backend="triton")
    first, others = result[0], result[1:]
    assert (first[3] if op == "dsn_token_logits" else first).isnan().all()
    assert not others.isnan().any()


@pytest.mark.parametrize("op", ["dsn_logits", "embed_pool"], ids="{}-triton-cpu".format)
def test_a_row_that_ends_just_behind_the_batch(op):
    """One token behind it there are more ids: row 1 must not read them, and row 2 ends before it starts."""
    values = parameters(20, num_positions=14)
    arguments = {"input_ids": torch.arange(14)[1:13], "cu_seqlens": torch.tensor([0, 5, 13, 12])}
    if op == "embed_pool":
        result = ops.embed_pool(**arguments, **values, backend="triton")
    else:
        dsn_head = prepare_head(values["ln_weight"], values["ln_bias"], **head(20, 3, 1))
        result = ops.dsn_logits(**arguments, table=prepare_table(*list(values.values())[:3]), head=dsn_head,
                                backend="triton")
    assert result.isnan().any(dim=1).tolist() == [False, True, True]
