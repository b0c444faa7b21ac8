"""Models without positions, with windows and a gate: beside torch's convolution in float64, in every form of a call."""

import copy
import pickle

import pytest
import torch
from torch import nn
from windowed_models import (
    KINDS,
    LENGTHS,
    ROUNDING,
    expected_logits,
    expected_pooled,
    packed,
    padded_rows,
    windowed_model,
)

from dendritic_bert import (
    DendriticBertConfig,
    DendriticBertForQuestionAnswering,
    DendriticBertForSequenceClassification,
    DendriticBertModel,
)
from dendritic_bert.kernels import ops

each_kind = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


def assert_close(actual, expected, rtol=ROUNDING, atol=ROUNDING) -> None:
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


@torch.no_grad()
def in_evaluation(model, rows):
    return model(**rows).logits


@each_kind
@pytest.mark.parametrize("holes", [False, True])
def test_logits(config, holes):
    """Float32 from tables, and in float64 the differentiable op and the modules."""
    model, rows = windowed_model(**config), padded_rows(holes)
    expected = expected_logits(model, rows)
    assert_close(in_evaluation(model, rows).double(), expected)
    if not holes:
        assert_close(in_evaluation(model, packed(rows)).double(), expected)
    exact = copy.deepcopy(model).double()
    for each in [rows] if holes else [rows, packed(rows)]:
        for hidden_states in (False, True):
            logits = exact(**each, output_hidden_states=hidden_states).logits
            assert_close(logits, expected, rtol=1e-12, atol=1e-12)


@each_kind
def test_which_op_serves(config, monkeypatch):
    called = []

    def noted(name, op):
        return lambda *arguments, **keywords: called.append(name) or op(*arguments, **keywords)

    for name in ("window_pool", "embed_pool", "dsn_window_logits", "dsn_logits"):
        monkeypatch.setattr(ops, name, noted(name, getattr(ops, name)))
    model, rows = windowed_model(**config), padded_rows()
    in_evaluation(model, rows)
    model(**rows)
    assert called == ["dsn_window_logits", "embed_pool" if model.config.pools_embeddings else "window_pool"]


def test_the_model_without_a_head():
    model, rows = windowed_model(**KINDS["recipe"]), padded_rows(holes=True)
    body = DendriticBertModel(model.config).eval()
    body.load_state_dict({name: value for name, value in model.state_dict().items() if name.startswith("bert.")})
    output = body(**rows)
    assert_close(output.pooler_output.double(), expected_pooled(model, rows))
    x = model.bert.embeddings(rows["input_ids"], rows["token_type_ids"])
    assert torch.equal(output.last_hidden_state, x)
    assert output.pooler_output.shape == (len(LENGTHS), 16 + 32)


def test_position_ids_do_not_count():
    model, rows = windowed_model(**KINDS["recipe"]), padded_rows()
    moved = rows | {"position_ids": torch.full_like(rows["input_ids"], 7)}
    assert torch.equal(in_evaluation(model, moved), in_evaluation(model, rows))


def test_padding_may_hold_anything():
    """NaN in the row of a word, and ids outside of the vocabulary."""
    model, rows = windowed_model(**KINDS["recipe"]), padded_rows()
    before = in_evaluation(model, rows)
    rows["input_ids"][rows["attention_mask"] == 0] = 599
    rows["input_ids"][rows["attention_mask"] == 1] %= 599
    expected = in_evaluation(model, rows)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[599] = torch.nan
    assert torch.equal(in_evaluation(model, rows), expected)
    assert_close(model(**rows).logits, expected)
    rows["input_ids"][rows["attention_mask"] == 0] = -1
    assert torch.equal(in_evaluation(model, rows), expected)
    assert before.shape == expected.shape


def test_embeddings_in_the_place_of_ids():
    model, rows = windowed_model(**KINDS["mean"]), padded_rows()
    embeds = {name: value for name, value in rows.items() if name != "input_ids"}
    embeds["inputs_embeds"] = model.bert.embeddings.word_embeddings(rows["input_ids"])
    expected = expected_logits(model, rows)
    assert_close(model(**embeds).logits.double(), expected)
    with pytest.raises(ValueError, match="inputs_embeds are given, but the gate of pooling 'gated_mean' knows words"):
        windowed_model(**KINDS["gate"])(**embeds)


@pytest.mark.parametrize("part", ["windows", "gate", "embeddings", "windows.dropout"])
def test_hooks_are_called(part):
    model, rows = windowed_model(**KINDS["recipe"]), padded_rows()
    before = in_evaluation(model, rows)
    called = []
    handle = model.bert.get_submodule(part).register_forward_pre_hook(lambda *_: called.append(part))
    if part != "windows.dropout":  # whose mask is the ops', as BERT's dropout is in ops.embed_pool
        assert_close(in_evaluation(model, rows), before)
        assert called
    handle.remove()
    assert torch.equal(in_evaluation(model, rows), before)


@pytest.mark.parametrize("hidden_states", [False, True])
def test_dropout_of_windows(hidden_states):
    """A layer whose every channel is dropped adds nothing: with one layer, its channels of the pooled row are 0."""
    model = windowed_model(**KINDS["mean"], window_dropout_prob=0.5, hidden_dropout_prob=0.0).train()
    pooled = []
    model.classifier.register_forward_pre_hook(lambda module, arguments: pooled.append(arguments[0]))
    rows = {"input_ids": torch.full((400, 1), 9)}
    model(**rows, output_hidden_states=hidden_states)
    model.eval()(**rows)
    dropped, kept = (each[:, 16:] for each in pooled)
    active = kept[0] > 0
    assert active.any()
    is_dropped = dropped[:, active] == 0
    assert 0.45 < is_dropped.float().mean() < 0.55  # of 400 rows times some channels: more than 4 standard deviations
    assert_close(dropped[:, active], torch.where(is_dropped, 0, 2 * kept[:, active]))
    assert_close(pooled[0][:, :16], pooled[1][:, :16])  # by the modules, or by the op


def test_a_training_step_reaches_every_parameter():
    model, rows = windowed_model(**KINDS["recipe"]).train(), padded_rows()
    model(**rows, labels=torch.tensor([0, 1, 0, 1])).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert not model.bert.embeddings.word_embeddings.weight.grad[0].any()  # that of padding, as nn.Embedding has it
    before = in_evaluation(model.eval(), rows)
    torch.optim.AdamW(model.parameters(), lr=0.1, fused=True).step()
    after = in_evaluation(model, rows)
    assert not torch.equal(after, before)
    assert_close(after.double(), expected_logits(model, rows))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["recipe", "gate"])
def test_half_dtypes(kind, dtype):
    """The parameters are rounded once; the sums run in float32. Only in bfloat16 are the layers' inputs rounded too."""
    model, rows = windowed_model(**KINDS[kind]).to(dtype), padded_rows()
    expected = expected_logits(model, rows)
    tolerance = ROUNDING if dtype == torch.float16 or kind == "gate" else 2e-2
    assert_close(in_evaluation(model, rows).double(), expected, rtol=tolerance, atol=tolerance)
    assert_close(model(**rows).logits.double(), expected, rtol=5e-2, atol=5e-2)


def test_prepare():
    model, rows = windowed_model(**KINDS["recipe"]), padded_rows()
    exact = in_evaluation(model, rows)
    assert model.prepare(torch.bfloat16) is model
    assert model._table_cache.tables.windowed.window_weight.dtype == torch.bfloat16
    rounded = in_evaluation(model, rows)
    assert not torch.equal(rounded, exact)
    assert_close(rounded, exact, rtol=2e-2, atol=2e-2)
    assert torch.equal(in_evaluation(model.prepare(torch.float32), rows), exact)
    model.prepare(torch.int8)
    assert model._table_cache.tables.windowed.window_weight.dtype == torch.int8
    in_integers = in_evaluation(model, rows)
    assert not torch.equal(in_integers, exact)
    assert_close(in_integers, exact, rtol=0.1, atol=0.1)  # of random weights; kernels/prepare_int8.py has the scheme
    assert torch.equal(in_evaluation(model, packed(rows)), in_integers)
    assert torch.equal(in_evaluation(pickle.loads(pickle.dumps(model)), rows), in_integers)
    with torch.no_grad():
        model.bert.windows.weight.mul_(0.5)
    assert not torch.equal(in_evaluation(model, rows), in_integers)
    with pytest.raises(ValueError, match=r"dtype is torch\.float16, a table is stored as one of torch\.float32"):
        model.prepare(torch.float16)
    with pytest.raises(ValueError, match=r"dtype is torch\.int8, a table is stored as one of torch\.float32, torch\.b"):
        windowed_model(**KINDS["gate"]).prepare(torch.int8)


def test_a_gate_beside_positions_runs_in_pytorch():
    model, rows = windowed_model(pooling="gated_mean", max_position_embeddings=64), padded_rows()
    with pytest.raises(ValueError, match=r"prepare\(\) needs a form that one op computes, but pooling is 'gated_mean'"):
        model.prepare()
    x = model.bert.embeddings(rows["input_ids"], rows["token_type_ids"])
    gates = (x @ model.bert.gate.weight + model.bert.gate.word_bias[rows["input_ids"]]).clamp(-8, 8).exp()
    gates = gates * rows["attention_mask"]
    pooled = (gates[..., None] * x).sum(dim=1) / gates.sum(dim=1, keepdim=True).clamp_min(1e-30)
    for each in (rows, packed(rows)):
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                assert_close(model(**each).logits, model.classifier(pooled))


@pytest.mark.parametrize("pooling", ["mean_all", "sum_all"])
def test_poolings_over_padding_go_without_positions(pooling):
    model, rows = windowed_model(pooling=pooling), padded_rows()
    x = model.bert.embeddings(rows["input_ids"], rows["token_type_ids"])
    pooled = x.sum(dim=1) if pooling == "sum_all" else x.mean(dim=1)
    for logits in (in_evaluation(model, rows), model(**rows).logits):
        assert_close(logits, model.classifier(pooled))


@pytest.mark.parametrize("norm", ["layer_norm", "none"])
def test_question_answering_without_positions(norm):
    config = DendriticBertConfig(vocab_size=600, hidden_size=16, max_position_embeddings=0, embedding_norm=norm,
                                 initializer_range=0.5, num_dendrites=1)
    model, rows = DendriticBertForQuestionAnswering(config).eval(), padded_rows()
    x = model.bert.embeddings(rows["input_ids"], rows["token_type_ids"])
    expected = model.qa_outputs(x) * rows["attention_mask"][..., None]
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            output = model(**rows)
            found = torch.stack([output.start_logits, output.end_logits], dim=-1)
            assert_close(found, expected)
            flat = model(**packed(rows))
            assert_close(flat.end_logits, expected[rows["attention_mask"] == 1][:, 1], rtol=1e-5,
                                       atol=1e-5)
    for field in ({"window_layers": 1, "window_dendrites": 4}, {"pooling": "gated_mean"}):
        with pytest.raises(ValueError, match="question answering neither pools nor has windows"):
            DendriticBertForQuestionAnswering(DendriticBertConfig(max_position_embeddings=0, **field))


@each_kind
def test_saved_loaded_copied_and_moved(config, tmp_path):
    model, rows = windowed_model(**config), padded_rows()
    expected = in_evaluation(model, rows)
    model.save_pretrained(tmp_path)
    loaded = DendriticBertForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.to_dict() == model.config.to_dict() | {"_name_or_path": str(tmp_path)}
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert not any("position" in name for name in loaded.state_dict())
    for twin in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.double().float()):
        assert torch.equal(in_evaluation(twin, rows), expected)


@each_kind
@pytest.mark.parametrize("grad", [False, True])
def test_on_meta(config, grad):
    """Where parameters have no numbers, logits have a shape and none either."""
    model = windowed_model(**config).to("meta")
    for rows in (padded_rows(), packed(padded_rows())):
        with torch.set_grad_enabled(grad):
            logits = model(**{name: values.to("meta") for name, values in rows.items()}).logits
        assert (logits.device.type, logits.shape) == ("meta", in_evaluation(windowed_model(**config), rows).shape)


def test_dendrites_grow_in_the_head():
    model, rows = windowed_model(**KINDS["recipe"]), padded_rows()
    before = in_evaluation(model, rows)
    model.add_dendrite()
    assert model.classifier.weight.shape == (4 * 2, 16 + 32)
    assert_close(in_evaluation(model, rows), before)  # it starts with top = 0
    with torch.no_grad():
        model.classifier.top.normal_()
    assert_close(in_evaluation(model, rows).double(), expected_logits(model, rows))


@pytest.mark.parametrize("name", [
    "bert.embeddings.word_embeddings.weight", "bert.embeddings.token_type_embeddings.weight",
    "bert.windows.input_weight", "bert.windows.weight", "bert.windows.bias", "bert.gate.weight", "bert.gate.word_bias",
    "classifier.weight", "classifier.top"])
def test_a_write_to_a_parameter_is_noticed(name):
    model, rows = windowed_model(**KINDS["recipe"]), padded_rows()
    before = in_evaluation(model, rows)
    model.get_parameter(name).data.mul_(0.5)
    after = in_evaluation(model, rows)
    assert not torch.allclose(after, before, rtol=ROUNDING, atol=ROUNDING)
    assert_close(after.double(), expected_logits(model, rows))


def test_compile_and_export():
    """As one graph; with any number of rows and columns."""
    model, rows = windowed_model(**KINDS["mean"]), padded_rows(holes=True)
    expected = expected_logits(model, rows)
    assert_close(torch.compile(model, fullgraph=True, backend="eager")(**rows).logits.double(), expected)
    shape = {0: torch.export.Dim("rows", min=2), 1: torch.export.Dim("length", min=2, max=60)}
    shorter = {name: value[:3, :7].contiguous() for name, value in rows.items()}
    program = torch.export.export(model, (), shorter, dynamic_shapes=dict.fromkeys(rows, shape))
    assert_close(program.module()(**rows).logits.double(), expected)


def test_a_head_of_two_layers():
    model, rows = windowed_model(**KINDS["recipe"], head_hidden=6), padded_rows()
    expected = expected_logits(model, rows)
    for logits in (in_evaluation(model, rows), model(**rows).logits):
        assert_close(logits.double(), expected)


def test_more_words():
    model, rows = windowed_model(**KINDS["recipe"]), padded_rows()
    before = in_evaluation(model, rows)
    model.resize_token_embeddings(640)
    assert model.bert.gate.word_bias.shape == (640,)
    assert isinstance(model.bert.gate.word_bias, nn.Parameter)
    assert torch.equal(in_evaluation(model, rows), before)
    rows["input_ids"][0, 0] = 639
    assert_close(in_evaluation(model, rows).double(), expected_logits(model, rows))
