"""The examples run as they are, offline and in an empty folder, and come to what they promise."""

import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import REPOSITORY
from small_classifier import WORDS
from small_encoder import WINDOWS, save_encoder, small_encoder

import dendritic_bert
from dendritic_bert import EMBEDDED_MODEL, TextClassifier, TextEncoder
from dendritic_bert.export import export


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run an example as a program, in this process; returns its global names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run_example(name: str, *arguments: str) -> dict:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        return runpy.run_path(str(REPOSITORY / "examples" / name), run_name="__main__")

    return run_example


def test_every_example_is_short_and_tested():
    examples = sorted((REPOSITORY / "examples").glob("*.py"))
    assert {f"test_{path.stem}" for path in examples} <= set(globals())
    assert max(len(path.read_text().splitlines()) for path in examples) <= 40


def test_drop_in_pipeline(run):
    names = run("drop_in_pipeline.py")
    assert [prediction["label"] for prediction in names["predictions"]] == ["positive", "negative", "positive"]
    scores = [prediction["score"] for prediction in names["classifier"](names["texts"])]
    # The pipeline computes in float16, and the classifier in int8.
    assert scores == pytest.approx([prediction["score"] for prediction in names["predictions"]], abs=1e-2)


def test_train_own_rows(run, tmp_path):
    names = run("train_own_rows.py", "trained")
    assert names["losses"][-1] < names["losses"][0] / 2
    texts, labels = zip(*names["ROWS"])
    classifier = TextClassifier.from_pretrained(tmp_path / "trained")
    assert [prediction["label"] for prediction in classifier(texts)] == list(labels)


def test_nearest_neighbours(run, tmp_path, capsys):
    """Beside all cosines at once, in float64; a few sentences more than one chunk."""
    folder = save_encoder(tmp_path / "encoder", small_encoder(**WINDOWS))
    words, rng = [word.strip(",:!") for word in WORDS], np.random.default_rng(0)
    lines = [" ".join(rng.choice(words, 6)) for _ in range(16384 + 50)]
    queries = [lines[16400], "the lazy fox", "a charming journey"]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run("nearest_neighbours.py", "lines.txt", *queries, "--neighbours", "4", "--model", folder)
    encoder = TextEncoder.from_pretrained(folder)
    cosines = encoder.encode(queries).astype(np.float64) @ encoder.encode(lines).astype(np.float64).T
    for query, row, block in zip(queries, cosines, capsys.readouterr().out.split("\n\n")[1:]):
        printed, *found = block.splitlines()
        assert printed == query
        assert [float(line.split()[0]) for line in found] == pytest.approx(np.sort(row)[:-5:-1], abs=6e-4)
        for line in found:
            cosine, sentence = line.strip().split("  ", 1)
            assert abs(row[lines.index(sentence)] - float(cosine)) < 6e-4


SUPPORT = {"billing": ["i was charged twice", "my card was declined", "please refund the last payment"],
           "delivery": ["the parcel has not come", "the box came broken", "it was left at the wrong door"]}


def test_train_on_csv(run, tmp_path, capsys):
    """Messages that tell their label by their words, which the model then knows."""
    rows = [(f"{opening} {message}", team) for team, messages in SUPPORT.items() for message in messages
            for opening in ("hello,", "good morning,", "sorry to write again:", "order 17:", "since monday", "please,",
                            "hi,")]
    (tmp_path / "support.csv").write_text("message,team\n" + "".join(f'"{text}",{team}\n' for text, team in rows))
    names = run("train_on_csv.py", "support.csv", "support")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "38 rows to train on, 4 held out"
    assert names["prediction"]["label"] == "delivery"
    assert f"accuracy {names['scores']['accuracy']:.3f}" in printed[1]
    predictions = TextClassifier.from_pretrained(tmp_path / "support")([text for text, _ in rows])
    assert [prediction["label"] for prediction in predictions] == [team for _, team in rows]

def test_grow_dendrites(run):
    names = run("grow_dendrites.py")
    scores = [entry["eval_accuracy"] for entry in names["trainer"].state.log_history if "eval_accuracy" in entry]
    assert max(scores[:8]) < 0.9  # without a dendrite: patience alone lasts that long
    assert names["accuracy"] == 1.0
    assert names["model"].config.num_dendrites == names["model"].classifier.num_dendrites >= 1


def test_embed_pool_in_a_model(run):
    names = run("embed_pool_in_a_model.py")
    torch.testing.assert_close(names["compiled"], names["eager"], rtol=1e-5, atol=1e-6)
    model = names["model"]
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    model(names["input_ids"], names["attention_mask"]).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)
    assert gradients["words"].abs().sum() > 0


def test_classify_file(run, tmp_path, capsys):
    (tmp_path / "reviews.csv").write_text('id,review\n1,a charming journey\n2,"no plot, no wit"\n3\n')
    run("classify_file.py", "reviews.csv", "labels.jsonl", "review")
    records = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [record["label"] for record in records] == ["positive", "negative", None]
    assert capsys.readouterr().out == "2 texts, 0 of them by an earlier run, 0 cut to 1048576 tokens, 1 malformed\n"
    assert {path.name for path in tmp_path.iterdir()} == {"reviews.csv", "labels.jsonl"}


def test_run_onnx(tmp_path):
    """In a process that can import neither torch nor transformers nor this package: the classifier's own results."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    texts = ["unflinchingly bleak and desperate", "a gripping and funny film", "no wit " * 400, ""]
    export(EMBEDDED_MODEL, tmp_path / "my-onnx")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules |= dict.fromkeys(['torch', 'transformers', 'dendritic_bert'])\n")
    done = subprocess.run([sys.executable, REPOSITORY / "examples" / "run_onnx.py", "my-onnx", *texts], cwd=tmp_path,
                          env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["text"] for record in records] == texts
    classifier = TextClassifier.from_pretrained()
    classifier.config.table_dtype = "float32"  # in place of int8
    for record, expected in zip(records, classifier(texts), strict=True):
        assert record["label"] == expected["label"]
        assert record["score"] == pytest.approx(expected["score"], abs=1e-5)


@pytest.fixture
def serve(run, monkeypatch):
    """Run an example that serves, in a thread and on a free port; returns its global names and its address."""
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn (extra `serve`) is not installed")
    servers = []

    def start(app, **options):
        assert options == {"host": "127.0.0.1", "port": 8123}
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)

    def serve_example(name: str) -> tuple[dict, str]:
        monkeypatch.setattr(uvicorn, "run", start)
        names = run(name, "--port", "8123")
        host, port = servers[0][0].servers[0].sockets[0].getsockname()
        return names, f"http://{host}:{port}"

    yield serve_example
    for server, thread in servers:
        server.should_exit = True
        thread.join()


def test_serve_fastapi(serve):
    """Eight clients at a time, each with other texts, get what a direct call gives."""
    pytest.importorskip("fastapi", reason="fastapi (extra `serve`) is not installed")
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    names, address = serve("serve_fastapi.py")
    requests = [[f"a charming film, number {row} of {number}" for row in range(number % 50)] for number in range(64)]
    with httpx.Client(timeout=60) as client, ThreadPoolExecutor(8) as clients:
        answers = [*clients.map(lambda texts: client.post(f"{address}/classify", json={"texts": texts}), requests)]
        assert [answer.json() for answer in answers] == [names["classifier"](texts) for texts in requests]
        for body in ({}, {"texts": "a"}, {"texts": [None]}, {"texts": ["a"] * 10_001}):
            answer = client.post(f"{address}/classify", content=json.dumps(body),
                                 headers={"Content-Type": "application/json"})
            assert answer.status_code == 422, body
        assert client.post(f"{address}/classify", json={"texts": []}).json() == []


@pytest.fixture
def ray_cluster(monkeypatch):
    """Two workers on this machine; blocks are so small that there are several of the 4096 rows of a batch."""
    ray = pytest.importorskip("ray", reason="ray (extra `scale`) is not installed")
    pytest.importorskip("ray.data", reason="ray (extra `scale`) is not installed")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_enable_worker_prestart", "0")
    ray.init(num_cpus=2, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().target_max_block_size = 50_000
    yield
    ray.shutdown()


@pytest.mark.slow(seconds=60)
def test_classify_with_ray(run, ray_cluster, tmp_path, monkeypatch):
    """The same rows, none of them lost or doubled, though an actor is killed while it classifies."""
    texts = [f"a charming film, number {row}" if row % 3 else f"no plot, no wit, {row}" for row in range(20_000)]
    reviews = pa.table({"id": [*range(len(texts))], "review": texts})
    pq.write_table(reviews, tmp_path / "reviews.parquet", row_group_size=4000)
    killed = tmp_path / "killed"

    class KilledOnce(TextClassifier):
        def __call__(self, batch, **options):
            if texts[9000] in batch and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch, **options)

    expected = TextClassifier.from_pretrained()(texts)
    monkeypatch.setattr(dendritic_bert, "TextClassifier", KilledOnce)
    run("classify_with_ray.py", "reviews.parquet", "labelled", "--column", "review")
    labelled = pq.read_table(tmp_path / "labelled").sort_by("id").to_pydict()
    assert killed.exists()
    assert labelled == {**reviews.to_pydict(), "label": [prediction["label"] for prediction in expected],
                        "score": [prediction["score"] for prediction in expected]}
