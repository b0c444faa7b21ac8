"""A plugin of pytest: every test runs once per way in which the Triton kernels cut a batch into small tiles.

Rows then share programs and columns take several steps, and in the second way rows are split every eight columns.
"""

import pytest

from dendritic_bert.kernels.backends.triton import configs
from dendritic_bert.kernels.backends.triton.configs import Config

TILES = {"whole rows": Config(4, 4), "splits": Config(2, 4, split_columns=8)}


@pytest.fixture(autouse=True, scope="module", params=TILES.values(), ids=TILES)
def _small_tiles(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configs, "candidates", lambda key: [request.param])
        yield
