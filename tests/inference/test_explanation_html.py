"""The page of explanations: well-formed, escaped, and written as a whole."""

import os
import xml.etree.ElementTree as ElementTree

import pytest
from small_classifier import hugging_face_tokenizer, small_model

from dendritic_bert import TextClassifier
from dendritic_bert.inference.explanation_html import page, write_page

LABELS = ["<good>", 'bad & "ugly"', "'so-so'"]
TEXTS = ["the fox", "</p><script>alert('x')</script> & \"quoted\" > fox", "café 世界 👍🏽 \x00\x1b[31m fox", "",
         "fox " * 60]


@pytest.fixture(scope="module")
def explanations():
    classifier = TextClassifier(small_model(num_labels=3, id2label=dict(enumerate(LABELS))), hugging_face_tokenizer())
    return [*map(classifier.explain, TEXTS), classifier.explain("the fox", "<jumps>")]


def parsed(text: str) -> ElementTree.Element:
    """The page as XML, which leaves no tag open and no character unescaped."""
    head, _, rest = text.partition("\n")
    assert head == "<!DOCTYPE html>"
    return ElementTree.fromstring(rest)


def test_a_section_for_every_text_and_label(explanations):
    sections = parsed(page(explanations, LABELS)).findall(".//section")
    assert len(sections) == len(explanations) * len(LABELS)
    for number, section in enumerate(sections):
        explanation, label = explanations[number // 3], LABELS[number % 3]
        score, logit = explanation.scores[number % 3], explanation.logits[number % 3]
        assert section.find("h2").text == f"{label}: score {score:.4f}, logit {logit:+.4f}"
        shown = ["".join(text.itertext()) for text in section.findall("p")]
        texts = [explanation.text] if explanation.text_pair is None else [explanation.text, explanation.text_pair]
        assert shown == [text.replace("\x00", "\ufffd").replace("\x1b", "\ufffd") for text in texts]
        rows = [[cell.text for cell in row.findall("td")] for row in section.findall(".//tr")[1:-3]]
        assert rows == [[f"{word.shares[number % 3]:+.4f}", f"{word.left_out[number % 3]:+.4f}", word.text]
                        for word in explanation.words]


def test_only_the_tags_of_the_page(explanations):
    tags = {element.tag for element in parsed(page(explanations)).iter()}
    assert tags == {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "i", "section", "span",
                    "details", "summary", "table", "tr", "th", "td"}


def test_colours_follow_the_signs(explanations):
    section = parsed(page(explanations[:1])).find(".//section")
    explanation = explanations[0]
    number = explanation.labels.index(explanation.label)
    spans = section.findall(".//span")
    assert [span.get("class") for span in spans] == [
        "for" if word.shares[number] >= 0 else "against" for word in explanation.words]
    largest = max(spans, key=lambda span: float(span.get("style").rpartition(",")[2].strip(" )")))
    assert largest.text == max(explanation.words, key=lambda word: abs(word.shares[number])).text
    assert "share " in largest.get("title")
    assert "left out " in largest.get("title")


def test_words_that_were_not_read(explanations):
    spans = parsed(page(explanations[4:5])).findall(".//span[@class='unread']")
    assert len(spans) == len(explanations[4].not_read) > 0


def test_labels_by_default(explanations):
    classifier = TextClassifier(small_model(num_labels=3), hugging_face_tokenizer())
    other = next(label for label in classifier.labels if label != classifier.explain("fox").label)
    heads = [head.text.partition(":")[0] for head in parsed(page(
        [classifier.explain("fox"), classifier.explain("fox", labels=[other])])).findall(".//h2")]
    assert heads == [classifier.explain("fox").label, other]


def test_a_notebook_shows_the_section(explanations):
    for explanation in explanations:
        assert explanation._repr_html_() in page([explanation])
        assert explanation._repr_html_().startswith("<section>")


def test_the_file_is_whole_or_as_before(explanations, tmp_path, monkeypatch):
    target, link = tmp_path / "page.html", tmp_path / "link.html"
    target.write_text("before")
    link.symlink_to(target)

    def no_room(*_):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", no_room)
        with pytest.raises(OSError, match=r"page\.html cannot be written \(No space"):
            write_page(target, explanations)
    assert target.read_text() == "before"
    write_page(link, explanations)
    assert target.read_text(encoding="utf-8") == page(explanations)
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.html", "page.html"]


@pytest.mark.parametrize("name", [".", "missing/page.html"])
def test_where_no_page_can_be_written(explanations, tmp_path, name):
    with pytest.raises(OSError, match=r"cannot be written .*: name a file in a folder that can be written"):
        write_page(tmp_path / name, explanations)
    assert list(tmp_path.iterdir()) == []
