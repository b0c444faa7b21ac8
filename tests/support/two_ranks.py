"""Running a program in two processes of one group, as torchrun does, whose own process takes 4 s to start."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from helpers import REPOSITORY


def run_two_ranks(*program: object) -> str:
    """Run ``python *program`` as both ranks, with a thread each; what the first one writes to standard error."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
             "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests' / 'support'}", "OMP_NUM_THREADS": "1"}

    def run(rank: int) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, *map(str, program)], capture_output=True, text=True, timeout=300,
                              env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)})

    with ThreadPoolExecutor(2) as pool:
        ranks = list(pool.map(run, range(2)))
    assert [done.returncode for done in ranks] == [0, 0], "\n".join(done.stderr[-3000:] for done in ranks)
    return ranks[0].stderr
