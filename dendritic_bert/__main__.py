"""``python -m dendritic_bert`` prints the environment; with arguments it is the command line."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["env"]))
