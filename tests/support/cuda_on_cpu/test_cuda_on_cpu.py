"""The executor that runs CUDA kernels on a CPU: what it computes, and that it finds what a device would hang on."""

import ctypes
import os
import subprocess
import sys
from functools import cache

import pytest
import torch
from cuda_on_cpu import build

pytestmark = pytest.mark.skipif(build.missing() is not None, reason=str(build.missing()))
TINY = build.HERE / "tiny_kernels.cpp"
FORWARD, REVERSE, SHUFFLED = range(3)
SCHEDULES = [(FORWARD, 0), (REVERSE, 0), (SHUFFLED, 1), (SHUFFLED, 2), (SHUFFLED, 3)]
each_schedule = pytest.mark.parametrize(("schedule", "seed"), SCHEDULES)


@cache
def library(*flags: str) -> ctypes.CDLL:
    tiny = ctypes.CDLL(str(build.library("tiny", [TINY], list(flags) or build.PLAIN)))
    tiny.run_tiny.restype = ctypes.c_char_p
    return tiny


def run(name: str, values: torch.Tensor, outputs: int, *, n: int = 0, grid=(1, 1, 1), block=(32, 1, 1),
        shared_bytes: int = 0, schedule: int = FORWARD, seed: int = 0, tiny: ctypes.CDLL | None = None,
        out: torch.Tensor | None = None) -> torch.Tensor:
    """The kernel's output, NaN where it wrote nothing. Raises RuntimeError with the message of the executor."""
    out = torch.full((outputs,), float("nan")) if out is None else out
    failure = (tiny or library()).run_tiny(
        name.encode(), ctypes.c_void_p(values.data_ptr()), ctypes.c_long(values.numel()),
        ctypes.c_void_p(out.data_ptr()), ctypes.c_long(out.numel()), n, (ctypes.c_uint * 3)(*grid),
        (ctypes.c_uint * 3)(*block), ctypes.c_long(shared_bytes), schedule, ctypes.c_ulong(seed))
    if failure:
        raise RuntimeError(failure.decode())
    return out


@pytest.mark.parametrize(("blocks", "threads", "n"), [(1, 32, 5), (3, 64, 1000), (7, 128, 20000), (2, 1024, 5000)])
@each_schedule
def test_sums_over_lanes_warps_and_blocks(blocks, threads, n, schedule, seed):
    values = torch.arange(n, dtype=torch.float32) % 17
    sums = run("block_sums", values, blocks, n=n, grid=(blocks, 1, 1), block=(threads, 1, 1), schedule=schedule,
               seed=seed)
    stride = blocks * threads
    shares = torch.nn.functional.pad(values, (0, -n % stride)).view(-1, blocks, threads)
    assert torch.equal(sums, shares.sum(dim=(0, 2)))


@pytest.mark.parametrize("width", [32, 16, 8, 4])
@each_schedule
def test_shuffles_and_votes(width, schedule, seed):
    """By the definition of shfl.sync: a lane whose source lies outside its group of `width` lanes keeps its value."""
    values = torch.arange(64, dtype=torch.float32)
    results = run("warp_primitives", values, 64 * 7, n=width, block=(64, 1, 1), schedule=schedule, seed=seed)
    results = results.view(64, 7).tolist()
    for thread in range(64):
        lane, warp = thread % 32, thread // 32 * 32
        first = lane // width * width
        expected = [first + 5 % width, lane ^ 3, lane - 2 if lane - 2 >= first else lane,
                    lane + 2 if lane + 2 < first + width else lane]
        voters = sum(value > 10 for value in range(warp, thread))
        assert results[thread] == [*(warp + source for source in expected), voters, warp == 0, True]


@each_schedule
def test_halves_of_a_warp_need_not_meet(schedule, seed):
    values = torch.arange(64, dtype=torch.float32)
    results = run("halves_of_a_warp", values, 64, block=(64, 1, 1), schedule=schedule, seed=seed).view(2, 2, 16)
    sums = values.view(2, 2, 16).sum(dim=2)
    assert torch.equal(results, (sums * torch.tensor([1, 256])).unsqueeze(2).expand(2, 2, 16))


@each_schedule
def test_products_of_matrices(schedule, seed):
    """Small numbers, whose products and sums every format represents."""
    a, b = torch.randint(-8, 9, (2, 16, 16), generator=torch.Generator().manual_seed(0)).float()
    product = run("product_of_matrices", torch.stack([a, b]), 256, schedule=schedule, seed=seed)
    assert torch.equal(product.view(16, 16), a @ b)


@pytest.mark.parametrize(("name", "options"), [("order_of_threads", {"block": (96, 1, 1)}),
                                               ("order_of_blocks", {"grid": (96, 1, 1), "block": (1, 1, 1)})])
def test_the_schedules(name, options):
    """Reverse mirrors forward; shuffled is neither, differs between seeds, and repeats for the same seed."""
    forward, reverse, first, again, other = (
        run(name, torch.zeros(1), 97, schedule=schedule, seed=seed, **options)[:96]
        for schedule, seed in ((FORWARD, 0), (REVERSE, 0), (SHUFFLED, 1), (SHUFFLED, 1), (SHUFFLED, 2)))
    places = torch.arange(96.0)
    assert torch.equal(forward, places)
    assert torch.equal(reverse, places.flip(0))
    assert torch.equal(first, again)
    assert torch.equal(first.sort().values, places)
    assert torch.equal(other.sort().values, places)
    assert not any(torch.equal(a, b) for a, b in ((first, other), (first, forward), (first, reverse)))


@each_schedule
def test_indices_in_three_dimensions(schedule, seed):
    grid, block = (3, 2, 2), (4, 3, 5)
    results = run("indices", torch.zeros(1), 12 * 60, grid=grid, block=block, schedule=schedule, seed=seed)
    assert torch.equal(results.view(12, 60), torch.arange(12.0)[:, None] * 1000 + torch.arange(60.0))


def test_shared_memory_starts_as_nan_in_every_block():
    assert run("unwritten_shared", torch.zeros(1), 6, n=16, shared_bytes=64, grid=(3, 1, 1)).isnan().all()


def test_a_missing_barrier_shows_in_some_schedule():
    values = torch.arange(128, dtype=torch.float32)
    sums = [run("block_sums_without_barrier", values, 1, block=(128, 1, 1), schedule=schedule, seed=seed)
            for schedule, seed in SCHEDULES]
    assert sums[FORWARD].isnan()
    expected = torch.roll(values, -2)
    rings = [run("ring_without_second_barrier", values, 128, block=(128, 1, 1), shared_bytes=512, schedule=schedule,
                 seed=seed) for schedule, seed in SCHEDULES]
    assert not all(torch.equal(ring, expected) for ring in rings)


@pytest.mark.parametrize(("name", "options", "message"), [
    ("divergent_barrier", {"block": (64, 1, 1), "grid": (2, 1, 1)},
     r"kernel divergent_barrier, block \(0, 0, 0\): deadlock.*threads 0-39 at __syncthreads \(tiny_kernels.cpp:\d+\), "
     "threads 40-63 ended"),
    ("two_barriers", {"block": (64, 1, 1)}, r"different barriers: threads 0-39 at .*:\d+\), threads 40-63 at "),
    ("barrier_against_shuffle", {}, "deadlock.*threads 0-6 at __syncthreads .*threads 7-31 at a shuffle .*0xffffffff"),
    ("ended_lane", {}, "the mask names lanes that have ended"),
    ("lane_outside_its_mask", {}, "the thread is not in the mask of its own warp primitive"),
    ("source_outside_the_mask", {}, "a shuffle reads a lane outside its mask"),
    ("short_warp", {"block": (20, 1, 1)}, "the mask names lanes that the warp does not have"),
    ("product_of_matrices", {"n": 1}, "the lanes of a warp are at different instructions"),
    ("misaligned_load", {}, "a misaligned load"),
    ("copy_vector", {"n": 2}, "a misaligned access of a vector of 16 bytes"),
    ("past_dynamic_shared", {"n": 16, "shared_bytes": 64}, "wrote past its 64 bytes of dynamic shared memory"),
    ("block_sums", {"block": (1025, 1, 1)}, "a block of 1025 x 1 x 1 threads"),
    ("block_sums", {"block": (0, 1, 1)}, "a block of 0 x 1 x 1 threads"),
    ("block_sums", {"grid": (0, 1, 1)}, "a grid of 0 x 1 x 1 blocks"),
    ("block_sums", {"grid": (1, 65536, 1)}, "a grid of 1 x 65536 x 1 blocks"),
    ("block_sums", {"shared_bytes": 49153}, "49153 bytes of dynamic shared memory, 49152 are allowed"),
])
@each_schedule
def test_what_hardware_would_hang_on_or_leave_undefined(name, options, message, schedule, seed):
    values = torch.ones(2000)
    if "grid" in options and name == "divergent_barrier" and schedule != FORWARD:
        message = "deadlock"  # whichever block is the first
    with pytest.raises(RuntimeError, match=message):
        run(name, values, 2000, schedule=schedule, seed=seed, **options)
    assert run("block_sums", values, 1, n=50, block=(64, 1, 1), schedule=schedule, seed=seed).item() == 50


def test_shared_memory_beyond_48_kib_has_to_be_asked_for():
    options = {"n": 20000, "shared_bytes": 80000, "grid": (2, 1, 1)}
    with pytest.raises(RuntimeError, match="80000 bytes of dynamic shared memory, 49152 are allowed"):
        run("unwritten_shared", torch.zeros(1), 4, **options)
    assert library().allow_shared(ctypes.c_long(227 * 1024 + 1)) != 0
    assert library().allow_shared(ctypes.c_long(80000)) == 0
    assert run("unwritten_shared", torch.zeros(1), 4, **options).isnan().all()


def test_contexts_are_switched_without_assembly_too():
    values = torch.arange(1000, dtype=torch.float32)
    sums = run("block_sums", values, 3, n=1000, grid=(3, 1, 1), block=(128, 1, 1),
               tiny=library("-O1", "-DCUDA_ON_CPU_UCONTEXT"))
    assert sums.sum() == values.sum()


@pytest.mark.parametrize(("name", "options", "race"), [
    ("block_sums", {"n": 500, "block": (128, 1, 1)}, None),
    ("block_sums_without_barrier", {"block": (64, 1, 1)}, "shared memory: thread .* at tiny_kernels.cpp:"),
    ("ring_without_second_barrier", {"block": (64, 1, 1), "shared_bytes": 256}, "shared memory"),
    ("add_without_atomic", {"block": (32, 1, 1)}, "global memory: thread .* (wrote|read) at"),
    ("add_over_blocks_without_atomic", {}, None),
    ("add_over_blocks_without_atomic", {"grid": (3, 1, 1)}, "global memory: thread 0 of another block"),
    ("add_with_atomic", {"grid": (3, 1, 1)}, None),
    ("last_block_adds_up<by_all>", {"grid": (5, 1, 1)}, None),
    ("last_block_adds_up<by_the_first>", {"grid": (5, 1, 1)}, None),
    ("last_block_adds_up<no_release>", {"grid": (5, 1, 1)}, "global memory: thread [0-9]+ of another block wrote"),
    ("last_block_adds_up<no_acquire>", {"grid": (5, 1, 1)}, "global memory: thread [0-9]+ of another block wrote"),
    ("last_block_adds_up<by_the_first_too_early>", {"grid": (5, 1, 1)}, "global memory: thread .* of another block"),
    ("exchange_within_a_warp", {"n": 1}, None),
    ("exchange_within_a_warp", {"n": 0}, "shared memory"),
    ("warp_primitives", {"n": 8}, None), ("halves_of_a_warp", {}, None), ("indices", {"grid": (3, 2, 1)}, None),
])
@pytest.mark.parametrize(("schedule", "seed"), SCHEDULES[:3])
def test_races_are_found_in_every_schedule(name, options, race, schedule, seed):
    def call():
        run(name, torch.zeros(600), 600, schedule=schedule, seed=seed, tiny=library(*build.FIND_RACES), **options)

    if race is None:
        call()
    else:
        with pytest.raises(RuntimeError, match=f"kernel {name}, block .*: a race for {race}"):
            call()


@pytest.mark.parametrize(("name", "n", "finding"), [
    ("read_beside", 0, None), ("read_beside", 63, None), ("read_beside", -1, "a load of 4 bytes .* lies outside every"),
    ("read_beside", 64, "a load of 4 bytes at tiny_kernels.cpp:[0-9]+ lies outside every array of the call"),
    ("past_its_memory", 0, None), ("past_its_memory", 63, None), ("past_its_memory", -1, "a store of 4 .* outside"),
    ("past_its_memory", 64, "a store of 4 bytes .* outside"), ("copy_vector", 60, None),
    ("copy_vector", 64, "lies outside"), ("copy_vector", 58, "a misaligned access of a vector"),
    ("read_eight_bytes", 62, None), ("read_eight_bytes", 63, "a load of 8 bytes .* (outside|misaligned)"),
    ("read_eight_bytes", 3, "a load of 8 bytes at .* is misaligned"),
])
@pytest.mark.parametrize("whole", [True, False], ids=["whole tensors", "parts of one tensor"])
def test_every_access_is_held_to_the_bounds_and_the_alignment_of_its_array(name, n, finding, whole):
    """Even if what lies beside the array belongs to the same tensor, or to another array of the call."""
    values, out = (torch.zeros(2, 64) if whole else torch.zeros(8 + 64 + 64 + 8)[8:-8].view(2, 64)).unbind()
    if whole:
        values, out = values.clone(), out.clone()
    tiny = library(*build.FIND_RACES)
    if finding is None:
        run(name, values, 64, n=n, block=(1, 1, 1), tiny=tiny, out=out)
    else:
        with pytest.raises(RuntimeError, match=f"kernel {name}, block .*: .*{finding}"):
            run(name, values, 64, n=n, block=(1, 1, 1), tiny=tiny, out=out)


def test_what_a_watched_kernel_writes_reaches_its_array():
    values, out = torch.arange(130.0).view(2, 65)[:, 1:].unbind()
    run("copy_vector", values.clone(), 64, n=4, block=(1, 1, 1), tiny=library(*build.FIND_RACES), out=out.clone())
    out = run("past_its_memory", values, 64, n=5, block=(1, 1, 1), tiny=library(*build.FIND_RACES), out=out)
    assert out.tolist() == [1.0 if i == 5 else 66.0 + i for i in range(64)]


def convert(name: str, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    result = torch.empty(values.shape, dtype=dtype)
    getattr(library(), name)(ctypes.c_void_p(values.data_ptr()), ctypes.c_void_p(result.data_ptr()),
                             ctypes.c_long(values.numel()))
    return result


@pytest.mark.parametrize(("name", "dtype"), [("half", torch.float16), ("bfloat16", torch.bfloat16),
                                             ("float8", torch.float8_e4m3fn)])
def test_narrow_numbers_are_those_of_torch(name, dtype):
    """From every bit pattern to float, and back from every value, every tie, and the floats beside each tie."""
    patterns = torch.arange(2 ** (8 * dtype.itemsize), dtype=torch.int32)
    values = patterns.to(torch.uint8 if dtype.itemsize == 1 else torch.int16).view(dtype)
    wide = convert(f"{name}_to_float", values, torch.float32)
    assert torch.equal(wide.nan_to_num(123.0), values.float().nan_to_num(123.0))
    if name == "float8":
        return
    finite = wide[wide.isfinite()].sort().values
    ties = (finite[1:].double() + finite[:-1].double()).div(2).float()
    beside = [torch.nextafter(ties, torch.full_like(ties, end)) for end in (-torch.inf, torch.inf)]
    wide = torch.cat([wide, ties, *beside, torch.tensor([65519.996, 65520.0, 1e30, -1e30, 3.4028235e38, 1e-45])])
    narrow = convert(f"float_to_{name}", wide, torch.int16).view(dtype)
    assert torch.equal(narrow.float().nan_to_num(123.0), wide.to(dtype).float().nan_to_num(123.0))


FINDINGS = """
import ctypes, sys
tiny = ctypes.CDLL(sys.argv[1])
floats, ones = (ctypes.c_float * 64)(), (ctypes.c_uint * 3)(1, 1, 1)
tiny.run_tiny.restype = ctypes.c_char_p
out = ctypes.CDLL(None).malloc
out.restype = ctypes.c_void_p
tiny.run_tiny(sys.argv[2].encode(), floats, ctypes.c_long(64), ctypes.c_void_p(out(64 * 4)), ctypes.c_long(64),
              int(sys.argv[3]), ones,
              (ctypes.c_uint * 3)(32, 1, 1), ctypes.c_long(int(sys.argv[4])), 0, ctypes.c_ulong(0))
"""


@pytest.mark.parametrize(("name", "n", "shared_bytes", "finding"), [
    ("past_its_memory", 63, 0, None), ("past_its_memory", 64, 0, "heap-buffer-overflow"),
    ("past_dynamic_shared", 15, 64, None), ("past_dynamic_shared", 16, 64, "use-after-poison"),
    ("divergent_barrier", 0, 0, None), ("warp_primitives", 32, 0, "heap-buffer-overflow"),
])
def test_under_address_sanitizer(name, n, shared_bytes, finding):
    tiny = build.library("tiny", [TINY], build.SANITIZE)
    done = subprocess.run([sys.executable, "-c", FINDINGS, str(tiny), name, str(n), str(shared_bytes)],
                          env=os.environ | build.sanitizer_environment(), capture_output=True, text=True)
    if finding is None:
        assert done.returncode == 0, done.stderr[-3000:]
    else:
        assert done.returncode != 0
        assert finding in done.stderr
        assert "tiny_kernels.cpp" in done.stderr
