"""Classifies texts whose words are new all the time, from several threads, and says how much memory that takes.

    python tests/fuzz/soak.py --minutes 20

A cache that grew with the words, a workspace that is not given back or memory that falls into pieces would show: after
the first tenth of the time the process must not grow by more than ``--most_growth`` MB. Ends with 1 if it does. Linux
only.
"""

import argparse
import itertools
import os
import random
import sys
import threading
import time

from dendritic_bert import TextClassifier

LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_mb() -> float:
    """The memory of this process that is in use, in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE / 1e6


def word(number: int) -> str:
    """A word for each number, of letters; one in eight has an accent or is of another script."""
    letters = "" if number % 8 else ("caf\u00e9", "\u4e16", "na\u00efve", "\U0001f600")[number // 8 % 4]
    while number:
        number, letter = divmod(number, len(LETTERS))
        letters += LETTERS[letter]
    return letters


class Users:
    """Threads that classify until they are told to stop; ``texts`` and ``words`` count what they have done."""

    def __init__(self, count: int, threads: int):
        self._classifier, self._threads = TextClassifier.from_pretrained(), threads
        self._stop, self._numbers = threading.Event(), itertools.count(1)
        self.texts = self.words = 0
        self._lock, self._error = threading.Lock(), None
        self._users = [threading.Thread(target=self._run, args=(seed,)) for seed in range(count)]

    def _run(self, seed: int) -> None:
        rng = random.Random(seed)
        try:
            while not self._stop.is_set():
                sizes = [rng.choice((1, 8, 25, 60)) for _ in range(rng.choice((1, 64, 600)))]
                sizes += [20_000] * (rng.random() < 0.02)
                texts = [rng.choice((" ", " ", " ", ", ", "")).join(word(next(self._numbers)) for _ in range(size))
                         for size in sizes]
                self._classifier.predict_array(texts, threads=self._threads)
                with self._lock:
                    self.texts, self.words = self.texts + len(sizes), self.words + sum(sizes)
        except BaseException as error:
            self._error = error
            self._stop.set()

    def __enter__(self) -> "Users":
        for user in self._users:
            user.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for user in self._users:
            user.join()
        if self._error is not None:
            raise self._error

    def work(self, seconds: float) -> bool:
        """Let them work for so long; False if one has failed."""
        return not self._stop.wait(seconds)


def soak(minutes: float, num_users: int, threads: int, most_growth: float) -> int:
    """Run, print a line now and then, and return the status of the process."""
    start, warm, peak, next_line = time.monotonic(), None, 0.0, 0.0
    with Users(num_users, threads) as users:
        while (elapsed := time.monotonic() - start) < 60 * minutes and users.work(min(1.0, 6 * minutes)):
            resident = resident_mb()
            if elapsed > 6 * minutes:
                warm = resident if warm is None else warm
                peak = max(peak, resident)
            if elapsed >= next_line:
                print(f"{elapsed:6.0f} s {resident:8.1f} MB {users.texts:12,} texts {users.words:14,} words",
                      flush=True)
                next_line += 6 * minutes
    growth = peak - (warm or 0)
    verdict = "flat" if growth <= most_growth else f"not flat, since that is more than {most_growth:g} MB"
    print(f"{users.texts:,} texts of {users.words:,} words, none of them twice, from {num_users} users with {threads} "
          f"threads each in {minutes:g} minutes: at most {growth:.1f} MB above the {warm or 0:.1f} MB after a tenth of "
          f"the time, which is {verdict}.")
    return 0 if growth <= most_growth else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--users", type=int, default=3, help="threads of Python that classify at the same time")
    parser.add_argument("--threads", type=int, default=2, help="threads of the engine for each of them")
    parser.add_argument("--most_growth", type=float, default=16, help="MB")
    arguments = parser.parse_args()
    return soak(arguments.minutes, arguments.users, arguments.threads, arguments.most_growth)


if __name__ == "__main__":
    sys.exit(main())
