"""PEFT's adapters and accelerate's offloading, on a DSN as on BERT."""

import copy

import accelerate
import pytest
import torch
from helpers import tiny_bert
from peft import (
    LoraConfig,
    PeftModel,
    PromptEncoderConfig,
    PromptTuningConfig,
    TaskType,
    TrainableTokensConfig,
    get_peft_model,
)
from torch import nn

from dendritic_bert import DendriticBertForQuestionAnswering, DendriticBertForSequenceClassification

INPUTS = {"input_ids": torch.arange(36).view(4, 9) + 5, "attention_mask": (torch.arange(9) < torch.tensor(
    [[9], [4], [1], [7]])).long()}
LABELS = torch.tensor([0, 1, 1, 0])
EMBEDDINGS = ["word_embeddings", "position_embeddings", "token_type_embeddings"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tiny_bert(num_labels=2, hidden_size=64, max_position_embeddings=40).save_pretrained(folder)
    return folder


@pytest.fixture
def model(checkpoint):
    torch.manual_seed(0)
    return DendriticBertForSequenceClassification.from_pretrained(checkpoint)


def logits_of(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**INPUTS).logits


def train(model) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        model(**INPUTS, labels=LABELS).loss.backward()
        optimizer.step()


CONFIGS = {
    "lora": LoraConfig(task_type=TaskType.SEQ_CLS, r=4, target_modules=EMBEDDINGS),
    "dora": LoraConfig(task_type=TaskType.SEQ_CLS, r=4, target_modules=["word_embeddings"], use_dora=True),
    "tokens": TrainableTokensConfig(task_type=TaskType.SEQ_CLS, token_indices=[5, 6, 14],
                                    target_modules=["word_embeddings"]),
    "prompt": PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=3),
    "p_tuning": PromptEncoderConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=3, encoder_hidden_size=8),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_adapters_are_trained_and_served(model, name, tmp_path):
    base = copy.deepcopy(model)
    before = logits_of(model)
    adapted = get_peft_model(model, copy.deepcopy(CONFIGS[name]))
    frozen = {key: value.clone() for key, value in adapted.state_dict().items()}
    train(adapted)
    moved = [key for key, value in adapted.state_dict().items() if not torch.equal(value, frozen[key])]
    assert any("classifier" not in key for key in moved)
    assert not any("base_layer" in key or key.endswith("LayerNorm.weight") for key in moved)
    after = logits_of(adapted)
    assert not torch.allclose(after, before, atol=1e-2)
    torch.testing.assert_close(after, adapted(**INPUTS).logits)
    adapted.save_pretrained(tmp_path)
    torch.testing.assert_close(logits_of(PeftModel.from_pretrained(base, tmp_path)), after)


def test_merged_lora_is_a_plain_model_again(model):
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=EMBEDDINGS))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.3)
    expected = logits_of(adapted)
    with adapted.disable_adapter():
        assert not torch.allclose(logits_of(adapted), expected, atol=1e-2)
    merged = adapted.merge_and_unload()
    assert type(merged) is DendriticBertForSequenceClassification
    torch.testing.assert_close(logits_of(merged), expected, rtol=1e-4, atol=1e-4)
    assert merged._table_cache.tables is not None


def test_lora_in_packed_rows_and_question_answering(checkpoint, model):
    ids, lengths = INPUTS["input_ids"][INPUTS["attention_mask"].bool()], INPUTS["attention_mask"].sum(dim=1)
    packed = {"input_ids": ids, "cu_seqlens": torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])}
    lora = LoraConfig(r=4, target_modules=EMBEDDINGS, init_lora_weights=False)
    adapted = get_peft_model(model, copy.deepcopy(lora)).eval()
    with torch.no_grad():
        torch.testing.assert_close(adapted(**packed).logits, adapted(**INPUTS).logits, rtol=1e-4, atol=1e-4)
        qa = DendriticBertForQuestionAnswering.from_pretrained(checkpoint, num_labels=2)
        before = qa(**INPUTS).start_logits
        adapted = get_peft_model(qa, copy.deepcopy(lora)).eval()
        after = adapted(**INPUTS).start_logits
        assert not torch.allclose(after, before, atol=1e-2)
        torch.testing.assert_close(adapted(**packed).start_logits, after[INPUTS["attention_mask"].bool()])


# ---- accelerate ------------------------------------------------------------------------------------------------------

OFFLOADS = {
    "cpu_offload": lambda model, folder: accelerate.cpu_offload(model, execution_device="cpu"),
    "disk_offload": lambda model, folder: accelerate.disk_offload(model, folder, execution_device="cpu"),
    "dispatch_model": lambda model, folder: accelerate.dispatch_model(
        model, {"bert": "disk", "dropout": "cpu", "classifier": "disk"}, main_device="cpu", offload_dir=folder),
}


@pytest.mark.parametrize("kind", [DendriticBertForSequenceClassification, DendriticBertForQuestionAnswering])
@pytest.mark.parametrize("offload", OFFLOADS)
def test_offloading(checkpoint, kind, offload, tmp_path):
    model = kind.from_pretrained(checkpoint, num_labels=2, num_dendrites=1)
    with torch.no_grad():
        expected = model(**INPUTS).to_tuple()
        if kind is DendriticBertForQuestionAnswering and offload == "dispatch_model":
            accelerate.dispatch_model(model, {"bert": "disk", "qa_outputs": "disk"}, main_device="cpu",
                                      offload_dir=tmp_path)
        else:
            OFFLOADS[offload](model, tmp_path)
        assert any(parameter.is_meta for parameter in model.parameters())
        for found, value in zip(model(**INPUTS).to_tuple(), expected, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("device_map", [
    "auto", "cpu", {"": "cpu"}, {"bert": "cpu", "classifier": "cpu", "dropout": "cpu"}], ids=str)
def test_device_map(checkpoint, model, device_map):
    mapped = DendriticBertForSequenceClassification.from_pretrained(checkpoint, device_map=device_map)
    torch.testing.assert_close(logits_of(mapped), logits_of(model), rtol=1e-4, atol=1e-4)


def test_prepared_by_an_accelerator(model):
    accelerator = accelerate.Accelerator(cpu=True)
    before = logits_of(model)
    prepared, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True))
    prepared.eval()
    accelerator.backward(prepared(**INPUTS, labels=LABELS).loss)
    torch.testing.assert_close(logits_of(prepared), before)
    optimizer.step()
    after = logits_of(prepared)
    assert not torch.allclose(after, before, atol=1e-2)
    torch.testing.assert_close(after, copy.deepcopy(accelerator.unwrap_model(prepared))(**INPUTS).logits)
