"""What BERT's forward takes, ours take: beside transformers' BERT, keyword by keyword; and what AutoModel loads."""

import logging

import pytest
import torch
from helpers import tiny_bert
from small_classifier import hugging_face_tokenizer
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    Trainer,
    TrainingArguments,
    pipeline,
)

from dendritic_bert import (
    DendriticBertConfig,
    DendriticBertForQuestionAnswering,
    DendriticBertForSequenceClassification,
    DendriticBertModel,
)

CLASSES = {DendriticBertForSequenceClassification: BertForSequenceClassification,
           DendriticBertForQuestionAnswering: BertForQuestionAnswering}
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
INPUTS = {"input_ids": torch.tensor([[3, 7, 9, 4, 2], [8, 1, 6, 0, 0]]), "attention_mask": MASK}
# What tokenizers, trainers, PEFT and old code pass; BERT takes each and it changes none of its logits.
HARMLESS = {
    "special_tokens_mask": torch.zeros(2, 5, dtype=torch.long), "output_attentions": False,
    "output_hidden_states": False, "head_mask": None, "use_cache": False, "past_key_values": None,
    "cache_position": None, "encoder_hidden_states": None, "encoder_attention_mask": None, "length": [5, 3],
    "num_items_in_batch": torch.tensor(2), "is_causal": None, "overflow_to_sample_mapping": None,
}


@pytest.fixture(scope="module", params=CLASSES, ids=["classification", "qa"])
def pair(tmp_path_factory, request):
    """A DSN, the same with its encoder, and transformers' own model of the same checkpoint."""
    folder = tmp_path_factory.mktemp("bert")
    tiny_bert(CLASSES[request.param], num_labels=2).save_pretrained(folder)
    dsn, encoder = (request.param.from_pretrained(folder, dsn=dsn, num_labels=2) for dsn in (True, False))
    return dsn, encoder, CLASSES[request.param].from_pretrained(folder)


def first(output) -> torch.Tensor:
    return output.logits if "logits" in output else output.start_logits


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", HARMLESS)
def test_keywords_are_taken(pair, name, grad, caplog):
    dsn, encoder, bert = pair
    if name in ("use_cache", "is_causal", "past_key_values"):
        encoder = bert = dsn  # passed on, where some versions of transformers do not take them
    with torch.set_grad_enabled(grad), caplog.at_level(logging.WARNING):
        for model in (dsn, encoder, bert):
            assert torch.equal(first(model(**INPUTS, **{name: HARMLESS[name]})), first(model(**INPUTS)))
    assert not caplog.records


@pytest.mark.parametrize("return_dict", [True, False])
@pytest.mark.parametrize("grad", [False, True])
def test_hidden_states_and_attentions(pair, grad, return_dict):
    dsn, encoder, bert = pair
    asked = {"output_hidden_states": True, "output_attentions": True}
    with torch.set_grad_enabled(grad):
        theirs = bert(**INPUTS, **asked)
        ours = encoder(**INPUTS, **asked, return_dict=return_dict)
        output = dsn(**INPUTS, **asked, return_dict=return_dict)
        plain = first(dsn(**INPUTS))
    if not return_dict:
        torch.testing.assert_close(ours, theirs.to_tuple())
        assert len(output) == len(theirs.to_tuple()) - 1  # a DSN has no attentions
        output = {"hidden_states": output[-1], "first": output[0]}
    else:
        for name in asked:
            name = name.removeprefix("output_")
            torch.testing.assert_close(ours[name], theirs[name])
        assert output.attentions is None
        output = {"hidden_states": output.hidden_states, "first": first(output)}
    torch.testing.assert_close(output["first"], plain, rtol=1e-5, atol=1e-5)
    (states,) = output["hidden_states"]
    torch.testing.assert_close(states, theirs.hidden_states[0])  # BERT's first ones are its embeddings


def test_hidden_states_by_the_configuration(pair):
    dsn = pair[0]
    with torch.no_grad():
        before = dsn(**INPUTS)
        assert before.hidden_states is None
        dsn.config.output_hidden_states = True
        try:
            after = dsn(**INPUTS)
            assert len(after.hidden_states) == 1
            assert dsn(**INPUTS, output_hidden_states=False).hidden_states is None
        finally:
            dsn.config.output_hidden_states = False
        assert dsn(**INPUTS).hidden_states is None
    torch.testing.assert_close(first(after), first(before), rtol=1e-5, atol=1e-5)


def test_hidden_states_of_packed_rows(pair):
    dsn, ids = pair[0], INPUTS["input_ids"]
    packed = dsn(ids[MASK.bool()], cu_seqlens=torch.tensor([0, 5, 8]), output_hidden_states=True)
    padded = dsn(**INPUTS, output_hidden_states=True)
    torch.testing.assert_close(packed.hidden_states[0], padded.hidden_states[0][MASK.bool()])


def test_embeddings_in_the_place_of_ids(pair):
    for model in pair:
        embeds = model.get_input_embeddings()(INPUTS["input_ids"])
        with torch.no_grad():
            torch.testing.assert_close(first(model(inputs_embeds=embeds, attention_mask=MASK)), first(model(**INPUTS)),
                                       rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="both given or both missing"):
        pair[0](attention_mask=MASK)


def test_a_keyword_of_nobody_is_warned_of_once(pair, caplog):
    """BERT swallows it without a word."""
    name = f"atention_mask_of_{type(pair[0]).__name__}"
    with torch.no_grad():
        for model in pair[:2]:
            for _ in range(2):
                model(**INPUTS, **{name: MASK})
    assert [record.getMessage() for record in caplog.records] == [
        f"{name} is not an argument of this model or of BERT: it is ignored."]


def test_a_mask_of_four_dimensions_is_refused(pair):
    with pytest.raises(RuntimeError, match=r"attention_mask has shape \[2, 1, 5, 5\], expected \[2, 5\]"):
        pair[0](INPUTS["input_ids"], attention_mask=torch.ones(2, 1, 5, 5))
    four = pair[1](INPUTS["input_ids"], attention_mask=torch.zeros(2, 1, 5, 5))  # all may look at all
    torch.testing.assert_close(first(four), first(pair[2](INPUTS["input_ids"])))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_gradient_checkpointing(pair, caplog):
    dsn, encoder, _ = pair
    before = first(dsn(**INPUTS))
    dsn.gradient_checkpointing_enable({"use_reentrant": False})
    assert [record.getMessage() for record in caplog.records] == [
        "gradient_checkpointing_enable() has no effect: a DSN has no layers to compute again."]
    dsn.gradient_checkpointing_disable()
    assert not dsn.is_gradient_checkpointing
    assert torch.equal(first(dsn(**INPUTS)), before)

    encoder.gradient_checkpointing_enable()
    assert encoder.is_gradient_checkpointing
    first(encoder.train()(**INPUTS)).sum().backward()
    encoder.eval().gradient_checkpointing_disable()


def test_accumulated_steps_are_one_large_step(tmp_path):
    """The Trainer divides the loss of accumulated steps for a model that does not do so itself."""
    rows = [{"input_ids": [number, 3, 4], "labels": number % 2} for number in range(8)]
    updates = []
    for size, steps in ((4, 1), (2, 2)):
        torch.manual_seed(0)
        model = DendriticBertForSequenceClassification(DendriticBertConfig(
            vocab_size=50, hidden_size=16, max_position_embeddings=20, hidden_dropout_prob=0.0))
        arguments = TrainingArguments(tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=steps,
                                      num_train_epochs=1, learning_rate=0.1, optim="sgd", report_to="none",
                                      use_cpu=True, disable_tqdm=True, save_strategy="no", max_grad_norm=0.0)
        Trainer(model, arguments, train_dataset=rows).train()
        updates.append([parameter.detach() for parameter in model.parameters()])
    for one, other in zip(*updates, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# ---- AutoModel -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Classifiers on disk: a DSN and one with its encoder."""
    root = tmp_path_factory.mktemp("saved")
    tiny_bert(vocab_size=600, num_labels=2).save_pretrained(root / "bert")
    for dsn in (True, False):
        DendriticBertForSequenceClassification.from_pretrained(root / "bert", dsn=dsn).save_pretrained(root / str(dsn))
    hugging_face_tokenizer().save_pretrained(root / "True")
    return root


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dsn", [True, False])
def test_auto_model_gives_pooled_embeddings(saved, dsn, dtype):
    model = AutoModel.from_pretrained(saved / str(dsn), dtype=dtype)
    assert type(model) is DendriticBertModel
    bert = BertModel.from_pretrained(saved / "bert", dtype=dtype)
    output = model(**INPUTS)
    assert list(output) == ["last_hidden_state", "pooler_output"]
    assert output.last_hidden_state.dtype == output.pooler_output.dtype == dtype
    if dsn:
        tokens = bert.embeddings(INPUTS["input_ids"])
        pooled = (tokens.double() * MASK[..., None]).sum(dim=1) / MASK.sum(dim=1, keepdim=True)
    else:
        theirs = bert(**INPUTS)
        tokens, pooled = theirs.last_hidden_state, theirs.pooler_output
    torch.testing.assert_close(output.last_hidden_state, tokens)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(output.pooler_output.double(), pooled.double(), rtol=tolerance, atol=tolerance)
    flat = model(**INPUTS, return_dict=False, output_hidden_states=True)
    assert torch.equal(flat[1], output.pooler_output)
    assert torch.equal(flat[2][0], bert.embeddings(INPUTS["input_ids"]))


def test_auto_model_is_what_the_head_reads(saved):
    model = AutoModel.from_pretrained(saved / "True")
    classifier = DendriticBertForSequenceClassification.from_pretrained(saved / "True")
    ids, cu_seqlens = INPUTS["input_ids"][MASK.bool()], torch.tensor([0, 5, 8])
    for inputs in (INPUTS, {"input_ids": ids, "cu_seqlens": cu_seqlens}):
        pooled = model(**inputs).pooler_output
        torch.testing.assert_close(classifier.classifier(pooled), classifier(**inputs).logits)
    with pytest.raises(ValueError, match=r"^prepare\(\) needs a model with a head"):
        model.prepare()


def test_auto_model_is_trained_and_saved(saved, tmp_path):
    model = AutoModel.from_pretrained(saved / "True").train()
    model(**INPUTS).pooler_output.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(again(**INPUTS).pooler_output, model.eval()(**INPUTS).pooler_output)


def test_feature_extraction(saved):
    found = pipeline("feature-extraction", model=str(saved / "True"))("The quick brown fox", return_tensors=True)
    ids = AutoTokenizer.from_pretrained(saved / "True")("The quick brown fox", return_tensors="pt")["input_ids"]
    torch.testing.assert_close(found, AutoModel.from_pretrained(saved / "True")(ids).last_hidden_state)
