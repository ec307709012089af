"""pydantic-monty: an interpreter of Python in worker processes. `monty.py RUNS`"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from pydantic_monty import Monty

RUNS = int(sys.argv[1])
CALLS = "a = one(1)\nb = two(a)\nc = three([a, b])\n[a, b, c]"
HOST = {"one": lambda _: 1, "two": lambda _: 1, "three": lambda _: 1}


def once(pool, code, lookup):
    begin = time.perf_counter()
    with pool.checkout() as session:
        session.feed_run(code, external_lookup=lookup)
    return (time.perf_counter() - begin) * 1e3


def row(what, times, seconds):
    times.sort()
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    print(f"{what:<58} {p50:>12.3f} {p99:>12.3f} ms, {len(times) / seconds:.0f} 1/s")


with Monty() as pool:
    for what, code, lookup in [("1 + 1", "1 + 1", None), ("three calls", CALLS, HOST)]:
        for _ in range(20):
            once(pool, code, lookup)
        for threads in (1, 16):
            with ThreadPoolExecutor(threads) as executor:
                begin = time.perf_counter()
                times = list(executor.map(lambda _: once(pool, code, lookup), range(RUNS)))
                row(f"{what}, {threads} threads", times, time.perf_counter() - begin)
