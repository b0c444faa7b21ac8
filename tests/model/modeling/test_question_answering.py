"""Question answering: the head is applied to every token, by the fused op as by differentiable modules."""

import pytest
import torch
from helpers import assert_within_rounding, tiny_bert
from rounding import tracked
from transformers import AutoModelForQuestionAnswering, BertForQuestionAnswering

from dendritic_bert import DendriticBertConfig, DendriticBertForQuestionAnswering

SIZES = {"vocab_size": 60, "hidden_size": 16, "max_position_embeddings": 24, "num_hidden_layers": 1,
         "num_attention_heads": 2, "intermediate_size": 32, "initializer_range": 1.0}


def model(seed: int = 0, **config) -> DendriticBertForQuestionAnswering:
    torch.manual_seed(seed)
    return DendriticBertForQuestionAnswering(DendriticBertConfig(**SIZES | config)).eval()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(60, (3, 11), generator=generator)
    mask = torch.arange(11) < torch.tensor([[11], [7], [1]])
    types = (torch.arange(11) > 4).long().expand(3, -1)
    return {"input_ids": ids, "attention_mask": mask.long(), "token_type_ids": types}


@pytest.mark.parametrize("num_dendrites", [0, 1, 3])
@pytest.mark.parametrize("head_hidden", [None, 5])
def test_the_fused_op_and_the_differentiable_path_agree(batch, num_dendrites, head_hidden):
    net = model(num_dendrites=num_dendrites, head_hidden=head_hidden)
    if num_dendrites:
        for name, parameter in net.qa_outputs.named_parameters():
            if name.endswith(("top", "lateral")):
                torch.nn.init.normal_(parameter)
    eager = net(**batch)
    with torch.no_grad():
        fused = net(**batch)
    wide = tracked(dict(net.named_parameters()))
    exact = torch.func.functional_call(net, {name: value.requires_grad_() for name, value in wide.items()},
                                       kwargs=batch)
    for name in ("start_logits", "end_logits"):
        assert_within_rounding(fused[name], eager[name], exact[name])
        assert not fused[name][batch["attention_mask"] == 0].any()


def test_packed_rows(batch):
    net, lengths = model(num_dendrites=2), batch["attention_mask"].sum(dim=1)
    kept = batch["attention_mask"] == 1
    packed = {name: batch[name][kept] for name in ("input_ids", "token_type_ids")}
    packed["cu_seqlens"] = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    padded = net(**batch)
    torch.testing.assert_close(net(**packed).start_logits, padded.start_logits[kept])
    with torch.no_grad():
        torch.testing.assert_close(net(**packed).end_logits, padded.end_logits[kept])


def test_with_its_encoder_it_is_bert(batch):
    theirs = tiny_bert(BertForQuestionAnswering)
    ours = DendriticBertForQuestionAnswering(DendriticBertConfig(**theirs.config.to_dict() | {"dsn": False})).eval()
    ours.load_state_dict(theirs.state_dict())
    batch["input_ids"] %= 50
    positions = {"start_positions": torch.tensor([3, 2, 0]), "end_positions": torch.tensor([5, 11, 0])}
    found, expected = ours(**batch, **positions), theirs(**batch, **positions)
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(found.start_logits, expected.start_logits)
    assert torch.equal(found.end_logits, expected.end_logits)


@pytest.mark.parametrize("dsn", [True, False])
def test_it_begins_with_a_bert_and_is_saved(tmp_path, batch, dsn, caplog):
    bert = tiny_bert(vocab_size=60)
    bert.save_pretrained(tmp_path / "bert")
    net = DendriticBertForQuestionAnswering.from_pretrained(tmp_path / "bert", dsn=dsn, num_dendrites=1, num_labels=2)
    assert torch.equal(net.bert.embeddings.word_embeddings.weight, bert.bert.embeddings.word_embeddings.weight)
    net.save_pretrained(tmp_path / "saved")
    again = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "saved")
    assert type(again) is DendriticBertForQuestionAnswering
    with torch.no_grad():
        assert torch.equal(again(**batch).start_logits, net(**batch).start_logits)


def test_what_does_not_fit(batch):
    with pytest.raises(ValueError, match=r"^num_labels is 3, a span has 2 logits per token: pass num_labels=2\.$"):
        model(num_labels=3)
    with pytest.raises(ValueError, match=r"^cu_seqlens is given, but packed rows are for a DSN without a loss"):
        model(dsn=False)(**batch, cu_seqlens=torch.tensor([0, 11]))
    batch["input_ids"][1, 2] = 60
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"input_ids holds 60 in row 1"):
        model()(**batch)
