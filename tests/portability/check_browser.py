"""The page of `make browser`, as it is built in dist/browser, in a headless Chromium: labels and probabilities are the
package's, and everything together is smaller than 2 MB."""

import html
import json
import re
import shutil
import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from helpers import REPOSITORY

from dendritic_bert import TextClassifier
from dendritic_bert.inference.tokenizer_test_strings import TEST_STRINGS

PAGE = REPOSITORY / "dist" / "browser"
SENTENCES = [
    "a charming and often affecting journey", "dull", "", "unflinchingly bleak and desperate",
    "no plot , no wit , no reason to stay", "It is not the worst film of the year .",
    "the food was cold, the room was not", "a gorgeous, witty, seductive movie .", "we root for both of them",
    "caf\u00e9 \u4e2d\u56fd \U0001f600", "[SEP] hello [CLS]", "<b>bold</b> & \"quoted\"", "tedious " * 200, "x" * 300,
    "\u00dcBER na\u00efve", "so-so",
    *TEST_STRINGS[:30]]
# Pages of the tests, in which a script leaves what it finds as JSON: the scores of every sentence by classifier.js, and
# what index.html shows while each is typed into it.
PAGE_OF_TEST = """\
<!doctype html><meta charset="utf-8"><pre id="found"></pre><script type="module">
import { TextClassifier } from "./classifier.js";
async function run(sentences) { %s }
const write = (value) => document.getElementById("found").textContent = JSON.stringify(value);
run(%s).then(write, (error) => write(error.message));
</script>"""
CLASSIFY = """\
  const classifier = await TextClassifier.load("engine.wasm", "%s");
  return sentences.map((text) => classifier.classify(text));"""
TYPE = """\
  const frame = document.body.appendChild(document.createElement("iframe"));
  frame.src = "index.html";
  await new Promise((loaded) => frame.addEventListener("load", loaded));
  const [text, labels, note] = ["text", "labels", "note"].map((id) => frame.contentDocument.getElementById(id));
  while (!note.textContent.includes("for this text")) await new Promise((later) => setTimeout(later, 10));
  return sentences.map((sentence) => {
    text.value = sentence;
    text.dispatchEvent(new InputEvent("input"));
    const [label, , score] = labels.rows[0].cells;
    return [label.textContent, score.textContent, note.textContent];
  });"""

# An engine that has memory for so many bytes, and takes a second for a text.
STRANGE_ENGINE = """\
  const { TextClassifier } = await import("./classifier.js");
  let calls = 0;
  performance.now = () => 1000 * calls;
  const allocate = (size) => size <= %d ? 1024 : 0;
  const classifier = new TextClassifier({
    memory: new WebAssembly.Memory({ initial: 1 }), malloc: allocate, aligned_alloc: (_, size) => allocate(size),
    free() {}, dendritic_bert_open_memory: () => 1, dendritic_bert_num_labels: () => 0, dendritic_bert_scores() {},
    dendritic_bert_classify: () => { ++calls; return 0n; } }, new Uint8Array(65));
  return [classifier.timePerText("dull"), calls, classifier.classify("dull ".repeat(20))];"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A copy of the page in a folder, and the address at which it is served."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def open_page(tmp_path):
    """The HTML of a page once its scripts have run, as Chromium has it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is missing: apt-get install chromium")

    def dump(url: str) -> str:
        return subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", "--dump-dom", url],
            capture_output=True, text=True, timeout=120, check=True).stdout

    return dump


def run_script(site, open_page, script: str):
    """What a script gives for SENTENCES in a page of its own."""
    folder, address = site
    sentences = json.dumps(SENTENCES).replace("<", "\\u003c")  # "</script>" would end the script
    (folder / "test.html").write_text(PAGE_OF_TEST % (script, sentences))
    found = re.search(r'<pre id="found">(.*)</pre>', open_page(f"{address}/test.html"), re.DOTALL)
    return json.loads(html.unescape(found[1]))


def test_labels_and_probabilities_are_the_packages(site, open_page):
    found = run_script(site, open_page, CLASSIFY % "tiny.dsn")
    classifier = TextClassifier.from_pretrained("tiny")
    expected = classifier(SENTENCES)
    assert len(found) == len(SENTENCES) >= 40
    assert [answers[0]["label"] for answers in found] == [answer["label"] for answer in expected]
    scores = [answers[0]["score"] for answers in found]
    assert scores == pytest.approx([answer["score"] for answer in expected], abs=1e-6)
    assert all({answer["label"] for answer in answers} == set(classifier.labels) for answers in found)


def test_the_page_answers_as_one_types(site, open_page):
    """Chromium's clock stands still while a script runs here, so that the page shows some time, but not which."""
    found = run_script(site, open_page, TYPE)
    expected = TextClassifier.from_pretrained("tiny")(SENTENCES)
    assert [label for label, _, _ in found] == [answer["label"] for answer in expected]
    percentages = [float(score.removesuffix(" %")) for _, score, _ in found]
    assert percentages == pytest.approx([100 * answer["score"] for answer in expected], abs=0.051)
    assert all(re.fullmatch(r"\d+ \u00b5s for this text", note) for _, _, note in found)


def test_what_cannot_be_loaded_is_said(site, open_page):
    (site[0] / "cut.dsn").write_bytes((site[0] / "tiny.dsn").read_bytes()[:-1])
    assert "copy it again" in run_script(site, open_page, CLASSIFY % "cut.dsn")
    assert run_script(site, open_page, CLASSIFY % "missing.dsn") == "missing.dsn cannot be loaded (status 404)."


@pytest.mark.parametrize(("room", "message"), [
    (100, "The engine has no memory for the 128 bytes of a model: load a smaller one."),
    (150, "The engine has no memory for the 200 bytes of a text: shorten it.")])
def test_memory_that_is_not_there_is_said(site, open_page, room, message):
    assert run_script(site, open_page, STRANGE_ENGINE % room) == message


def test_a_long_text_is_timed_once(site, open_page):
    assert run_script(site, open_page, STRANGE_ENGINE % 1000) == [1000, 1, []]


def test_everything_is_smaller_than_2_mb():
    assert sum(path.stat().st_size for path in PAGE.iterdir()) < 2_000_000
