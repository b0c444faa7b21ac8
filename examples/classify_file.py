"""Classify a file of any size in constant memory; a run that was interrupted goes on where it ended.

    printf 'id,review\n1,a charming journey\n2,"no plot, no wit"\n' > reviews.csv
    python examples/classify_file.py reviews.csv labels.jsonl review
"""

import argparse

from dendritic_bert import TextClassifier

parser = argparse.ArgumentParser(description="Classify a column of a CSV, TSV or JSON Lines file.")
parser.add_argument("input", help="the format goes by the suffix")
parser.add_argument("output", help="as above; it appears under this name when it is whole")
parser.add_argument("column", nargs="?", default="text", help="column that holds the text (default: %(default)s)")
args = parser.parse_args()

classifier = TextClassifier.from_pretrained()  # or a folder or a hub id

# Until the output is whole, its lines are in OUTPUT.partial beside OUTPUT.partial.json. The same call after an
# interruption finds them, checks that input, model and options are those of the first call, and goes on: the file is
# the same to the byte as without the interruption. on_error="null" writes a record without a label where a record is
# malformed, so that output and input keep their rows in step; the default, "stop", ends the run and names the line.
report = classifier.classify_file(args.input, args.output, column=args.column, on_error="null")
print(f"{report.num_records} texts, {report.num_resumed} of them by an earlier run, "
      f"{report.num_truncated} cut to {classifier.max_length} tokens, {report.num_malformed} malformed")
