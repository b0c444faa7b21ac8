"""`explain`: what is printed with and without a terminal, as JSON, and as a page."""

import json
import re
import sys

import pytest
from small_classifier import MAX_LENGTH, hugging_face_tokenizer, small_model

from dendritic_bert import TextClassifier

TEXTS = ["the unaffable fox", "a \"charming\", journey"]
LABELS = ["negative", "positive"]
ESCAPE = re.compile(r"\x1b\[[\d;]*m")


@pytest.fixture(scope="module")
def explained(model_path):
    classifier = TextClassifier.from_pretrained(model_path)
    return [classifier.explain(text) for text in TEXTS]


@pytest.fixture
def run_on_a_terminal(run, monkeypatch):
    """``run`` with a standard output that seems to be a terminal which shows colours; ``changes`` are to variables."""
    def run_here(*argv: object, **changes: str) -> tuple[int, str, str]:
        monkeypatch.delenv("NO_COLOR", raising=False)
        for name, value in {"TERM": "xterm-256color", **changes}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        return run(*argv)

    return run_here


def expected_lines(explanation, label: str) -> list[str]:
    number = explanation.labels.index(label)
    rows = [f"{word.shares[number]:+8.4f}  {word.left_out[number]:+8.4f}  {word.text}" for word in explanation.words]
    return [explanation.text, explanation.labels[number], "   share  left out  word", *rows]


def assert_blocks(out: str, explanations, labels) -> None:
    blocks = [block.splitlines() for block in out.split("\n\n")]
    assert len(blocks) == len(explanations)
    for lines, explanation, label in zip(blocks, explanations, labels):
        name, _, total = lines[1].partition(": score ")
        number = explanation.labels.index(label)
        assert float(total[:6]) == pytest.approx(explanation.scores[number], abs=1e-4)
        assert [lines[0], name, *lines[2:]] == expected_lines(explanation, label)
        logit, *parts = map(float, re.findall(r"[+-]\d+\.\d{4}", total))
        assert logit == pytest.approx(explanation.logits[number], abs=1e-4)
        assert sum(parts) == pytest.approx(logit, abs=3e-4)


@pytest.mark.parametrize("source", ["arguments", "-", "standard input"])
def test_plain_lines_where_there_is_no_terminal(run, model_path, explained, source):
    stdin = b"" if source == "arguments" else "\n".join(TEXTS).encode()
    texts = {"arguments": TEXTS, "-": ["-"], "standard input": []}[source]
    status, out, err = run("explain", "--model", model_path, *texts, stdin=stdin)
    assert (status, err) == (0, "")
    assert "\x1b" not in out
    assert_blocks(out, explained, [explanation.label for explanation in explained])


def test_labels_of_choice(run, model_path, explained):
    status, out, _ = run("explain", "--model", model_path, "--label", "positive", "--label", "negative", TEXTS[0])
    assert status == 0
    assert_blocks(out, [explained[0], explained[0]], ["positive", "negative"])
    status, out, err = run("explain", "--model", model_path, "--label", "neutral", TEXTS[0])
    assert (status, out) == (1, "")
    assert err == ("dendritic-bert: error: labels is ['neutral'], pass a list of labels of the model: negative, "
                   "positive.\n")


def test_colours_on_a_terminal(run_on_a_terminal, model_path, explained):
    status, out, _ = run_on_a_terminal("explain", "--model", model_path, *TEXTS)
    assert status == 0
    assert_blocks(ESCAPE.sub("", out), explained, [explanation.label for explanation in explained])
    explanation = explained[0]
    shares = [word.shares[explanation.labels.index(explanation.label)] for word in explanation.words]
    strongest = max(range(len(shares)), key=lambda number: abs(shares[number]))
    colour = "77" if shares[strongest] > 0 else "203"
    assert f"\x1b[38;5;16;48;5;{colour}m{explanation.words[strongest].text}\x1b[0m" in out.splitlines()[0]


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_on_a_terminal_that_has_none(run_on_a_terminal, model_path, name, value):
    assert "\x1b" not in run_on_a_terminal("explain", "--model", model_path, TEXTS[0], **{name: value})[1]


def test_a_text_cannot_command_the_terminal(run_on_a_terminal, model_path):
    _, out, _ = run_on_a_terminal("explain", "--model", model_path, "fox\x1b]0;title\x07 jumps\u2028over\nit")
    assert ESCAPE.sub("", out).splitlines()[0] == "fox ]0;title  jumps over it"


def test_words_that_were_not_read(run, model_path):
    text = "fox " * 30 + "jumps"
    count = len(TextClassifier.from_pretrained(model_path).explain(text).not_read)
    assert 0 < count < 31
    _, out, _ = run("explain", "--model", model_path, text)
    assert out.splitlines()[-1] == f"not read, because the model takes fewer tokens: {count} words, from 'fox' on"


@pytest.mark.parametrize("side", ["right", "left"])
def test_which_words_were_not_read(run, tmp_path, side):
    """The last words of each text, or where texts are cut on the left the first; every word here is one token."""
    small_model().save_pretrained(tmp_path)
    hugging_face_tokenizer().save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"truncation_side": side}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    place = "from 'and' on" if side == "right" else "up to 'and'"

    def last_lines(num_words: int, *pair: str) -> list[str]:
        text = " ".join(["the", "and", *["a"] * (num_words - 4), "and", "the"])
        _, out, _ = run("explain", "--model", tmp_path, text, *pair)
        return [line for line in out.splitlines() if line.startswith("not read")]

    because = "not read, because the model takes fewer tokens:"
    assert last_lines(MAX_LENGTH - 2) == []
    assert last_lines(MAX_LENGTH) == [f"{because} 2 words, {place}"]
    assert last_lines(MAX_LENGTH - 3, "--text-pair", "a a") == [f"{because} 2 words of the first, {place}"]
    both = last_lines(MAX_LENGTH, "--text-pair", " ".join(["a"] * MAX_LENGTH))
    counts = [int(re.fullmatch(rf"{because} (\d+) words of the {which}, (from|up to) '\w+'( on)?", line)[1])
              for which, line in zip(("first", "second"), both)]
    assert sum(counts) == 2 * MAX_LENGTH - (MAX_LENGTH - 3)
    assert both[1].endswith("from 'a' on" if side == "right" else "up to 'a'")


def test_json(run, model_path, explained):
    status, out, err = run("explain", "--model", model_path, "--json", *TEXTS)
    assert (status, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [explanation.to_dict() for explanation in explained]


def test_a_byte_order_mark_is_no_part_of_a_text(run, model_path, explained):
    status, out, err = run("explain", "--model", model_path, "--json", stdin="\r\n".join(TEXTS).encode("utf-8-sig"))
    assert (status, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [explanation.to_dict() for explanation in explained]


def test_a_pair(run, model_path):
    expected = TextClassifier.from_pretrained(model_path).explain("the fox", "jumps")
    _, out, _ = run("explain", "--model", model_path, "--json", "the fox", "--text-pair", "jumps")
    assert json.loads(out) == expected.to_dict()
    assert run("explain", "--model", model_path, "the fox", "--text-pair", "jumps")[1].startswith("the fox\njumps\n")


@pytest.mark.parametrize(("columns", "flags", "warning"), [
    ({"text_column": "title", "text_pair_column": "body"}, [], "pairs, of the columns 'title' and 'body', but single "
     "texts are explained: pass a text and its second one, text_pair (--text-pair)."),
    ({"text_column": "title"}, ["--text-pair", "jumps"], "single texts, of the column 'title', but pairs are "
     "explained: leave out text_pair (--text-pair)."),
    ({"text_column": "title", "text_pair_column": "body"}, ["--text-pair", "jumps"], None),
    ({"text_column": "title"}, [], None),
])
def test_other_texts_than_those_of_the_training(run, tmp_path, capsysbinary, columns, flags, warning):
    small_model(training_columns=columns).save_pretrained(tmp_path)
    hugging_face_tokenizer().save_pretrained(tmp_path)
    capsysbinary.readouterr()  # the bars of transformers
    status, out, err = run("explain", "--model", tmp_path, "--json", "the fox", *flags)
    assert (status, out.count("\n")) == (0, 1)
    assert err == ("" if warning is None else f"dendritic-bert: warning: the model was trained on {warning}\n")


def test_a_page(run, model_path, tmp_path):
    path = tmp_path / "page.html"
    status, out, err = run("explain", "--model", model_path, "--html", path, *TEXTS)
    assert (status, out) == (0, "")
    assert err == f"dendritic-bert: texts explained in {path}: 2\n"
    assert path.read_text(encoding="utf-8").count("<section>") == 2
