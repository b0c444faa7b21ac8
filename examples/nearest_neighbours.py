"""Search the lines of a text file for those that mean most nearly what a query says, by their embeddings."""

import argparse
import time

import numpy as np

from dendritic_bert import TextEncoder

CHUNK = 16384  # sentences at a time; their cosines with a hundred queries take 6.5 MB

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("file", help="one sentence a line, UTF-8")
parser.add_argument("queries", nargs="+", help="what to look for")
parser.add_argument("--neighbours", type=int, default=3, help="how many for each query (default: %(default)s)")
parser.add_argument("--model", help="folder of another encoder than the one that comes with the package")
args = parser.parse_args()

encoder = TextEncoder.from_pretrained(args.model)
with open(args.file, encoding="utf-8") as file:
    sentences = file.read().splitlines()
start = time.perf_counter()
embeddings = encoder.encode(sentences)  # [sentences, 384], of length 1, so that a product is a cosine
print(f"{len(sentences):,} sentences embedded in {time.perf_counter() - start:.2f} s")

start = time.perf_counter()
queries = encoder.encode(args.queries)
places = np.zeros((len(queries), 0), int)  # of the nearest so far, and how near they are
cosines = np.zeros((len(queries), 0), np.float32)
for first in range(0, len(sentences), CHUNK):
    chunk = queries @ embeddings[first:first + CHUNK].T
    places = np.hstack([places, np.tile(np.arange(first, first + chunk.shape[1]), (len(queries), 1))])
    cosines = np.hstack([cosines, chunk])
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :args.neighbours]
    places, cosines = np.take_along_axis(places, nearest, 1), np.take_along_axis(cosines, nearest, 1)
print(f"{len(queries)} queries answered in {time.perf_counter() - start:.3f} s")
for query, where, near in zip(args.queries, places, cosines):
    print(f"\n{query}", *(f"  {cosine:.3f}  {sentences[place]}" for place, cosine in zip(where, near)), sep="\n")
