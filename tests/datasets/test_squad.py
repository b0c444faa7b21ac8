"""SQuAD: windows hold passage and answer, the best spans are found, and their text is scored."""

import itertools
import json
import re

import numpy as np
import pytest
from helpers import shared_path
from tokenizers.processors import TemplateProcessing
from transformers import BertTokenizer

from dendritic_bert.datasets.squad import (
    MAX_ANSWER_TOKENS,
    Question,
    Squad,
    best_spans,
    encode_windows,
    read_questions,
)
from dendritic_bert.training import TrainingOptions, evaluate, train

CONTEXT = ("Normandy is a region in France. It was settled in 911 by Rollo, a Norse leader, who swore fealty to King "
           "Charles III. Its people were called Normans.")
ANSWERS = [("In what country is it?", "France"), ("Who settled there?", "Rollo"), ("When?", "911"),
           ("Under which king?", "King Charles III"), ("And what were they called then?", "Normans")]


def question(text: str, answer: str, number: int = 0) -> Question:
    return Question(f"q{number}", "Normans", text, CONTEXT, (answer,), (CONTEXT.index(answer),))


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    made = BertTokenizer(vocab={word: place for place, word in enumerate(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({*" .,?'", *map(chr, range(97, 123)),
                                                               *(f"##{chr(c)}" for c in range(97, 123)),
                                                               *map(str, range(10)), *(f"##{d}" for d in range(10)),
                                                               *re.findall(r"\w+", CONTEXT.lower())})])})
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return made


@pytest.mark.parametrize("max_length", [36, 200])
def test_windows_hold_the_passage_and_the_answer(tokenizer, max_length):
    questions = [question(*pair, number) for number, pair in enumerate(ANSWERS)]
    windows = encode_windows(questions, tokenizer, max_length, stride=12)
    rows, num_whole = windows.rows, 0
    assert np.diff(rows.cu_seqlens).max() <= max_length
    covered = {number: set() for number in range(len(questions))}
    for window, owner in enumerate(windows.questions):
        tokens = slice(rows.cu_seqlens[window], rows.cu_seqlens[window + 1])
        offsets, types = windows.offsets[tokens], rows.token_type_ids[tokens]
        assert ((offsets >= 0).all(axis=1) <= (types == 1)).all()
        covered[owner] |= set(itertools.chain.from_iterable(range(*pair) for pair in offsets[offsets[:, 0] >= 0]))
        first, last = rows.labels[window]
        if first:
            num_whole += 1
            assert CONTEXT[offsets[first, 0]:offsets[last, 1]] == questions[owner].answers[0]
        else:
            assert last == 0
    visible = {place for place, character in enumerate(CONTEXT) if character != " "}
    assert all(places >= visible for places in covered.values())
    assert num_whole >= len(questions)
    assert (len(windows.questions) > len(questions)) == (max_length == 36)


def test_a_question_without_room(tokenizer):
    with pytest.raises(ValueError, match=r"^max_length is 40, but question q0 takes \d+ with a stride of 30: raise"):
        encode_windows([question("Who " * 9, "Rollo")], tokenizer, 40, stride=30)


@pytest.mark.parametrize("seed", range(4))
def test_spans_are_the_best_of_all_there_are(tokenizer, seed):
    """Compared with every pair of tokens of every window."""
    questions = [question(*pair, number) for number, pair in enumerate(ANSWERS)]
    windows = encode_windows(questions, tokenizer, 70, stride=8)
    rng = np.random.default_rng(seed)
    logits = [rng.normal(size=(70, 2)) for _ in windows.questions]
    every: dict[int, list[float]] = {number: [] for number in range(len(questions))}
    for window, owner in enumerate(windows.questions):
        offsets = windows.offsets[windows.rows.cu_seqlens[window]:windows.rows.cu_seqlens[window + 1]]
        inside = [token for token in range(len(offsets)) if offsets[token, 0] >= 0]
        every[owner] += [logits[window][a, 0] + logits[window][b, 1] for a in inside for b in inside
                         if a <= b < a + MAX_ANSWER_TOKENS]
    spans = best_spans(logits, windows, questions, num_best=3)
    for number, found in enumerate(spans):
        assert len(found) == 3
        # The best start and end are among the 20 best, the second and third nearly always.
        assert found[0].score == pytest.approx(max(every[number]))
        assert [span.score for span in found] == sorted((span.score for span in found), reverse=True)
        assert all(span.text and span.text in CONTEXT for span in found)


def test_impossible_spans_are_left_out(tokenizer):
    """Tokens of the question, [CLS], padding, and an end before its start have the best scores, but are not answers."""
    questions = [question("Who settled there?", "Rollo")]
    windows = encode_windows(questions, tokenizer, 200, stride=12)
    logits = np.zeros((220, 2))
    logits[:5] = logits[len(windows.offsets):] = 100
    start, end = windows.rows.labels[0]
    logits[start] = logits[end] = [10, 10]
    logits[end + 3, 0], logits[start - 3, 1] = 12, 12  # together the best pair, the wrong way round
    best = best_spans([logits], windows, questions)[0]
    assert best[0].score < 24
    assert all(span.text for span in best)
    logits[end + 3, 0] = logits[start - 3, 1] = 0
    assert best_spans([logits], windows, questions)[0][0] == ("Rollo", 20)


def squad_file(path, num_articles: int = 5, **changes) -> str:
    """A file in SQuAD's form, in which every article has the same passage."""
    entries = [{"id": f"{number}", "question": text, "answers": [
        {"text": answer, "answer_start": CONTEXT.index(answer)}]} | changes for number, (text, answer) in
        enumerate(ANSWERS)]
    articles = [{"title": f"a{article}", "paragraphs": [{"context": CONTEXT, "qas": [
        {**entry, "id": f"{article}-{entry['id']}"} for entry in entries]}]} for article in range(num_articles)]
    path.write_text(json.dumps({"version": "1.1", "data": articles}), encoding="utf-8")
    return str(path.parent)


def test_files(tmp_path):
    folder = squad_file(tmp_path / "dev-v1.1.json")
    questions = read_questions("dev", folder)
    assert len(questions) == 25
    assert questions[6] == Question("1-1", "a1", "Who settled there?", CONTEXT, ("Rollo",), (CONTEXT.index("Rollo"),))
    assert read_questions("dev", str(tmp_path / "dev-v1.1.json")) == questions
    with pytest.raises(FileNotFoundError, match=r"holds no train-v1\.1\.json: .*, or hold_out to train on dev questio"):
        read_questions("train", folder)


@pytest.mark.parametrize(("changes", "message"), [
    ({"answers": []}, "question 0-0 has no answer, as in SQuAD 2.0: pass SQuAD 1.1."),
    ({"answers": [{"text": "France", "answer_start": 3}]}, "has the answer 'France', which does not stand at 3 of its"),
    ({"answers": [{"text": "France"}]}, "is not in the form of SQuAD 1.1 (KeyError: 'answer_start'): fetch it again."),
    ({"question": None}, "is not in the form of SQuAD 1.1 (AttributeError"),
])
def test_files_that_do_not_fit(tmp_path, changes, message):
    folder = squad_file(tmp_path / "dev-v1.1.json", **changes)
    with pytest.raises(ValueError, match=r"^.{0,300}$") as caught:
        read_questions("dev", folder)
    assert message in str(caught.value)


def test_scores(tmp_path, tokenizer):
    """Perfect logits score 1; a part of an answer scores the F1 of its words."""
    squad = Squad(squad_file(tmp_path / "dev-v1.1.json"), with_train=False)
    _, rows = squad.encode(tokenizer, 200)
    logits = np.zeros((rows["dev"].labels.shape[0], 200, 2))
    for window, (first, last) in enumerate(rows["dev"].labels):
        logits[window, first, 0] = logits[window, last, 1] = 10
    assert squad.scores(logits, "dev") == {"f1": 1, "exact_match": 1}
    assert squad.scores((logits[..., 0], logits[..., 1]), "dev") == {"f1": 1, "exact_match": 1}
    for window, (first, last) in enumerate(rows["dev"].labels):  # the first token alone
        logits[window, last, 1] = 0
        logits[window, first, 1] = 10
    scores = squad.scores(logits, "dev")  # "King" of "King Charles III" has F1 = 2 * 1 * 1/3 / (4/3) = 1/2
    assert scores["exact_match"] == pytest.approx(4 / 5)
    assert scores["f1"] == pytest.approx(4.5 / 5)


def test_a_training(tmp_path):
    """An answer that is always the same word can be learnt without comparing question and passage."""
    entries = [(text, "Rollo") for text, _ in ANSWERS]
    articles = [{"title": f"a{number}", "paragraphs": [{"context": CONTEXT, "qas": [
        {"id": f"{number}-{i}", "question": text, "answers": [{"text": answer, "answer_start": CONTEXT.index(answer)}]}
        for i, (text, answer) in enumerate(entries)]}]} for number in range(10)]
    (tmp_path / "dev-v1.1.json").write_text(json.dumps({"data": articles}))
    output = str(tmp_path / "out")
    results = train(TrainingOptions(benchmark="squad", dsn=True, data_dir=str(tmp_path), hold_out=0.2, epochs=10,
                                    output_dir=output, lr=0.02, batch_size=8, num_dendrites=1))
    assert (results["num_train"], results["num_dev"], results["metric"]) == (40, 10, "f1")
    assert results["runs"][0]["exact_match"] == 1
    assert evaluate(output, "squad", str(tmp_path))["f1"] == 1
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "question-answering" in card
    assert "--benchmark squad --task squad --hold_out 0.2" in card
    (tmp_path / "RTE").mkdir()
    (tmp_path / "RTE" / "dev.tsv").write_text("sentence1\tsentence2\tlabel\na\tb\tentailment\n")
    with pytest.raises(ValueError, match=r"is a DendriticBertForQuestionAnswering, task 'rte' needs a .*: pass a"):
        evaluate(output, "rte", str(tmp_path))


def test_xquad_is_whole():
    questions = read_questions("dev", str(shared_path("data/squad")))
    assert (len(questions), len({question.context for question in questions})) == (1190, 240)
