"""Serve a classifier over HTTP: the model is loaded once, and its calls overlap in FastAPI's threads.

    pip install ".[serve]" && python examples/serve_fastapi.py --port 8000
    curl localhost:8000/classify -H 'Content-Type: application/json' -d '{"texts": ["a charming journey"]}'
"""

import argparse

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field

from dendritic_bert import TextClassifier


class Texts(BaseModel):
    texts: list[str] = Field(max_length=10_000)


class Prediction(BaseModel):
    label: str
    score: float


parser = argparse.ArgumentParser(description="Serve a classifier over HTTP.")
parser.add_argument("--model", help="folder or hub id (default: the model that comes with the package)")
parser.add_argument("--port", type=int, default=8000, help="port on this machine (default: %(default)s)")
args = parser.parse_args()

classifier = TextClassifier.from_pretrained(args.model)
app = FastAPI(title="dendritic-bert", description=f"Labels: {', '.join(classifier.labels)}")


@app.post("/classify")
def classify(request: Texts) -> list[Prediction]:
    # FastAPI calls a plain `def` in a thread, so that requests overlap; in an `async def` each waits for the last.
    return [Prediction(**prediction) for prediction in classifier(request.texts, threads=1)]


uvicorn.run(app, host="127.0.0.1", port=args.port)
