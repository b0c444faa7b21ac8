"""The reference, against the formula written as loops, the embeddings of transformers, and the vectors of Random123."""

import itertools
import math

import numpy as np
import pytest
import torch
from cases import LAYOUTS, head, in_float64, logits_by_parameters, parameters, tokens
from helpers import shared_path, tiny_bert
from philox_vectors import KNOWN_ANSWERS
from transformers import BertModel

from dendritic_bert.kernels.contract import POOLINGS
from dendritic_bert.kernels.prepare import prepare_head, prepare_table
from dendritic_bert.kernels.reference import (
    EMBED_STREAM,
    POOL_STREAM,
    dendritic_linear_ref,
    dropout_keep,
    dsn_logits_ref,
    embed_pool_ref,
    philox,
)


def philox_by_hand(seed: int, counter: tuple[int, ...]) -> tuple[int, ...]:
    """Philox 4x32-10 in Python's unbounded integers (Salmon et al. 2011, section 3.3)."""
    (c0, c1, c2, c3), (k0, k1) = counter, (seed % 2**32, (seed >> 32) % 2**32)
    for _ in range(10):
        (high0, low0), (high1, low1) = divmod(0xD2511F53 * c0, 2**32), divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def keep_by_hand(seed: int, row: int, column: int, hidden_size: int, p: float, stream: int) -> list[bool]:
    blocks = [philox_by_hand(seed, (block, column, row, stream)) for block in range(-(-hidden_size // 4))]
    return [word >= int(p * 2**32) for block in blocks for word in block][:hidden_size]


def token_rows(arguments: dict) -> list[list[tuple[int, int, int, int, bool]]]:
    """(column, id, position, token type, is valid) of every token of every row, in plain integers."""
    ids = arguments["input_ids"]
    if "cu_seqlens" in arguments:
        bounds = arguments["cu_seqlens"].tolist()
        places = [list(range(start, end)) for start, end in itertools.pairwise(bounds)]
    else:
        places = [list(range(b * ids.shape[1], (b + 1) * ids.shape[1])) for b in range(ids.shape[0])]
    flat = {name: value.flatten().tolist() for name, value in arguments.items()}
    count = ids.numel()
    types, valid = flat.get("token_type_ids", [0] * count), flat.get("attention_mask", [1] * count)
    return [[(column, flat["input_ids"][i], flat["position_ids"][i] if "position_ids" in flat else column, types[i],
              bool(valid[i])) for column, i in enumerate(row)] for row in places]


def pooled_by_hand(arguments: dict, values: dict, pooling: str, eps: float = 1e-12, p_embed: float = 0.0,
                   p_pool: float = 0.0, seed: int = 0) -> np.ndarray:
    """The contract, one token and one channel at a time, in float64."""
    word, position, token_type, gamma, beta = (value.double().numpy() for value in values.values())
    size, rows = word.shape[1], token_rows(arguments)
    pooled = np.zeros((len(rows), size))
    for b, row in enumerate(rows):
        used = [token for token in row if token[4] or pooling != "mean_masked"]
        for column, i, p, k, _ in used:
            e = [word[i, h] + position[p, h] + token_type[k, h] for h in range(size)]
            mean = math.fsum(e) / size
            variance = math.fsum((x - mean) ** 2 for x in e) / size
            keep = keep_by_hand(seed, b, column, size, p_embed, EMBED_STREAM)
            for h in range(size):
                x = (e[h] - mean) / math.sqrt(variance + eps) * gamma[h] + beta[h]
                pooled[b, h] += x / (1 - p_embed) * keep[h]
        if used and pooling != "sum_all":
            pooled[b] /= len(used)
        pooled[b] *= np.array(keep_by_hand(seed, b, 0, size, p_pool, POOL_STREAM)) / (1 - p_pool)
    return pooled


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("extras", [(), ("token_types",), ("positions",), ("token_types", "positions")], ids=str)
@pytest.mark.parametrize("dropout", [{}, {"p_embed": 0.3, "p_pool": 0.2, "seed": -(2**40) - 3}], ids=["", "dropout"])
def test_pooling_by_the_formula(layout, pooling, extras, dropout):
    arguments = tokens(layout, 4, 5, **dict.fromkeys(extras, True))
    values = in_float64(parameters(6))
    expected = pooled_by_hand(arguments, values, pooling, eps=1e-3, **dropout)
    if dropout:
        dropout = dropout | {"seed": torch.tensor(dropout["seed"])}
    actual = embed_pool_ref(**arguments, **values, pooling=pooling, eps=1e-3, **dropout)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=1e-13)
    single = embed_pool_ref(**arguments, **parameters(6), pooling=pooling, eps=1e-3, **dropout)
    np.testing.assert_allclose(single.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_dendrites", [0, 1, 2, 4])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "gelu"])
def test_head_by_the_formula(num_dendrites, activation):
    functions = {"sigmoid": lambda z: 1 / (1 + math.exp(-z)), "tanh": math.tanh, "relu": lambda z: max(z, 0.0),
                 "gelu": lambda z: z / 2 * (1 + math.erf(z / math.sqrt(2)))}
    size, labels = 6, 3
    values = in_float64(head(size, labels, num_dendrites))
    x = torch.randn(2, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight, bias, lateral, top = (value.numpy() for value in values.values())
    expected = np.zeros((2, labels))
    for b in range(2):
        for c in range(labels):
            layers = [math.fsum(weight[k * labels + c, h] * x[b, h].item() for h in range(size)) + bias[k * labels + c]
                      for k in range(1 + num_dendrites)]
            a: list[float] = []
            for k, z in enumerate(layers[1:]):
                a.append(functions[activation](z + sum(lateral[k, j, c] * a[j] for j in range(k))))
            expected[b, c] = layers[0] + sum(top[k, c] * a[k] for k in range(num_dendrites))
    actual = dendritic_linear_ref(x, **values, activation=activation)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_prepared_tables_give_what_the_parameters_give(layout, pooling):
    """Centring and folding are identities, so that only the rounding of the tables to float32 remains."""
    arguments = tokens(layout, 4, 7, token_types=True)
    values, head_values = parameters(20), head(20, 3, 2)
    table = prepare_table(*list(values.values())[:3])
    dsn_head = prepare_head(values["ln_weight"], values["ln_bias"], **head_values)
    expected = logits_by_parameters(arguments, in_float64(values), in_float64(head_values), "sigmoid", pooling)
    actual = dsn_logits_ref(**arguments, table=table, head=dsn_head, pooling=pooling)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("source", ["random", "bert-tiny"])
def test_against_the_embeddings_of_transformers(source):
    if source == "random":
        embeddings = tiny_bert().bert.embeddings
    else:
        embeddings = BertModel.from_pretrained(shared_path("models/bert-tiny")).eval().embeddings
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(embeddings.word_embeddings.num_embeddings, (5, 17), generator=generator)
    types = torch.randint(2, (5, 17), generator=generator)
    positions = torch.randint(20, (5, 17), generator=generator)
    mask = (torch.rand(5, 17, generator=generator) < 0.6).long()
    names = ("word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm")
    tables = [getattr(embeddings, name).weight for name in names] + [embeddings.LayerNorm.bias]
    for position_ids in (None, positions):
        with torch.no_grad():
            x = embeddings(input_ids=ids, token_type_ids=types, position_ids=position_ids)
            actual = embed_pool_ref(ids, *tables, attention_mask=mask, token_type_ids=types, position_ids=position_ids,
                                    eps=embeddings.LayerNorm.eps)
        expected = torch.stack([row[valid.bool()].double().mean(dim=0) for row, valid in zip(x, mask)])
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS, ids=["zeros", "ones", "pi"])
def test_philox_known_answers(counter, key, answer):
    seed = key[0] | key[1] << 32
    assert philox_by_hand(seed, counter) == answer
    signed = torch.tensor(seed - 2**64 if seed >= 2**63 else seed)
    assert tuple(word.item() for word in philox(signed, tuple(map(torch.tensor, counter)))) == answer


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), 0x123456789ABCDEF])
@pytest.mark.parametrize("stream", [EMBED_STREAM, POOL_STREAM])
def test_dropout_counts_by_block_column_row_and_stream(seed, stream):
    rows, columns = torch.tensor([0, 3, 2**31 - 1]), torch.tensor([5, 0, 511])
    for hidden_size in (1, 4, 7, 16):
        kept = dropout_keep(torch.tensor(seed), rows, columns, hidden_size, 0.4, stream)
        assert kept.tolist() == [keep_by_hand(seed, row, column, hidden_size, 0.4, stream)
                                 for row, column in zip(rows.tolist(), columns.tolist())]


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_dropout_drops_independently_with_its_probability(p):
    """The share of kept channels, and the correlation of neighbours in every direction, are within five standard
    deviations of what they should be."""
    batch, length, hidden_size = 32, 32, 128
    row, column = torch.meshgrid(torch.arange(batch), torch.arange(length), indexing="ij")
    seed = torch.tensor(2024)
    kept = dropout_keep(seed, row, column, hidden_size, p, EMBED_STREAM).double()
    others = {"row": kept.roll(1, 0), "column": kept.roll(1, 1), "channel": kept.roll(1, 2),
              "seed": dropout_keep(seed + 1, row, column, hidden_size, p, EMBED_STREAM).double(),
              "stream": dropout_keep(seed, row, column, hidden_size, p, POOL_STREAM).double()}
    bound = 5 * math.sqrt(p * (1 - p) / kept.numel())
    assert abs(kept.mean().item() - (1 - p)) <= bound
    for by_channel in (kept.mean(dim=(0, 1)), kept.mean(dim=2)):
        assert (by_channel - (1 - p)).abs().max() <= 5 * math.sqrt(p * (1 - p) * by_channel.numel() / kept.numel())
    for neighbour in others.values():
        covariance = ((kept - (1 - p)) * (neighbour - (1 - p))).mean().item()
        assert abs(covariance) <= 5 * p * (1 - p) / math.sqrt(kept.numel())


def test_dropout_keeps_the_expectation():
    arguments, values = tokens("padded", 3, 5), in_float64(parameters(8))
    plain = embed_pool_ref(**arguments, **values)
    draws = torch.stack([embed_pool_ref(**arguments, **values, p_embed=0.2, p_pool=0.3, seed=torch.tensor(seed))
                         for seed in range(1500)])
    standard_error = draws.std(dim=0) / math.sqrt(draws.shape[0])
    assert ((draws.mean(dim=0) - plain).abs() <= 5 * standard_error + 1e-12).all()
