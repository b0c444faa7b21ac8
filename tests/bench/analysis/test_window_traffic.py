"""bench/analysis/window_traffic.py: how much more than the least the windows' kernel in Triton reads and writes.

That the bytes are those of the interpreter is one of the tests of test_roofline.py.
"""

import pytest
import torch

pytest.importorskip("triton")
from launches import Call
from window_traffic import LENGTHS, TOKENS, config_of, tiles_of, window_traffic_of


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_row_in_one_tile_moves_the_least(length, target):
    """Within 5 %. A row of two tiles and more reads at most their overlap, 62 columns, again."""
    for dtype, longest in ((torch.bfloat16, 256), (torch.float32, 128)):
        call = Call("dsn_window_logits", 32, dtype, TOKENS // length, length)
        config = config_of(call, target)
        tiles, traffic = tiles_of(call, config), window_traffic_of(call, config)
        assert (len(tiles) == 1) == (length <= longest)
        assert sum(tiles) <= length + 62 * (len(tiles) - 1)
        assert traffic.moved >= traffic.least
        assert traffic.moved <= (1.05 if len(tiles) == 1 else 1.05 * sum(tiles) / length) * traffic.least


def test_the_least_is_counted_by_hand():
    """Per token: an id, a byte of mask, three taps of 32 but for two at the ends of a row, a gate and 8 values. Per
    row 2 logits; once the layers, the head, and what joins its dendrites."""
    call = Call("dsn_window_logits", 32, torch.bfloat16, 4096, 25)
    traffic = window_traffic_of(call, config_of(call, "sm_90"))
    layers = 4 * 5 * 32 + 2 * 4 * 3 * 32 * 32 + 4 * 32
    head = 4 * (6 * 32 + 6 + 2 + 4)
    assert traffic.least == 4096 * (25 * (4 + 1 + 4 + 32) + 4 * 32 * (3 * 25 - 2) + 8) + layers + head
