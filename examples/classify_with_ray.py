"""Classify the rows of Parquet files on a Ray cluster; a batch whose actor died is classified again by another one.

    pip install ".[scale]"
    python examples/classify_with_ray.py reviews labelled --column review --actors 2
"""

import argparse

import pyarrow as pa
import ray

from dendritic_bert import TextClassifier


class Classify:
    """One actor: it loads the model once, and takes the batches that Ray hands to it."""

    def __init__(self, model: str | None, column: str) -> None:
        self.classifier, self.column = TextClassifier.from_pretrained(model), column

    def __call__(self, batch: pa.Table) -> pa.Table:
        predictions = self.classifier(batch[self.column].to_pylist(), threads=1)
        for name in ("label", "score"):
            batch = batch.append_column(name, pa.array([prediction[name] for prediction in predictions]))
        return batch


parser = argparse.ArgumentParser(description="Add the columns label and score to the rows of Parquet files.")
parser.add_argument("input", help="file, or folder of files, that every machine of the cluster can read")
parser.add_argument("output", help="folder for the files that are written")
parser.add_argument("--column", default="text", help="column that holds the text (default: %(default)s)")
parser.add_argument("--model", help="folder or hub id (default: the model that comes with the package)")
parser.add_argument("--actors", type=int, default=2, help="processes, half a core each (default: %(default)s)")
args = parser.parse_args()

# Half a core for each actor leaves the other half to reading and writing: with whole cores and as many actors as cores,
# Ray waits for ever for a core to read with. Rows are written as they are done, in another order than they were read.
ray.data.read_parquet(args.input).map_batches(
    Classify, fn_constructor_args=(args.model, args.column), batch_format="pyarrow", batch_size=4096, num_cpus=0.5,
    compute=ray.data.ActorPoolStrategy(size=args.actors)).write_parquet(args.output)
