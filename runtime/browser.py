"""Builds a page that classifies what one types, into dist/browser: the engine for WebAssembly, the smaller model of the
package, and what is in page/. ``make browser`` calls it; any server of files serves the result."""

import shutil

import torch
from zig import TARGETS, TREE, compile_engine, run_zig

from dendritic_bert import TextClassifier
from dendritic_bert.inference.engine_model import model_file
from dendritic_bert.model.inference_tables import WindowTables

PAGE, OUTPUT = TREE / "runtime" / "page", TREE / "dist" / "browser"
CALLS = ("open_memory", "num_labels", "label", "classify", "scores", "error")
EXPORTS = ("malloc", "aligned_alloc", "free", *(f"dendritic_bert_{name}" for name in CALLS))


def single_text_model(name: str) -> bytes:
    """The file of a model with windows in int8, for single texts: without the tables of the second token type, which is
    that of the second text of a pair."""
    classifier = TextClassifier.from_pretrained(name)
    with torch.no_grad():
        windowed = classifier._source.make_tables().windowed
    first = {table: getattr(windowed, table)[:1] for table in ("values", "gate", "taps")}
    tables = WindowTables(windowed._replace(**first))
    return model_file(tables, classifier.config, classifier.tokenizer, classifier.max_length, 1,
                      classifier.labels).tobytes()


if __name__ == "__main__":
    shutil.rmtree(OUTPUT, ignore_errors=True)
    shutil.copytree(PAGE, OUTPUT)
    (OUTPUT / "tiny.dsn").write_bytes(single_text_model("tiny"))
    run_zig("c++", TARGETS["wasm32-wasi"],
            ["-s", "-mexec-model=reactor", *(f"-Wl,--export={name}" for name in EXPORTS),
             *compile_engine("wasm32-wasi"), "-o", OUTPUT / "engine.wasm"])
    size = sum(path.stat().st_size for path in OUTPUT.iterdir())
    print(f"{OUTPUT.relative_to(TREE)}: {size / 1e6:.2f} MB")
