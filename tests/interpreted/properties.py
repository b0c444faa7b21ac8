"""The properties of any batch on the Triton kernels, interpreted on a CPU; run by test_triton_properties.py.

Small tiles, so that rows share programs and columns take several steps; and once with pieces of eight columns.
"""

import pytest
from test_properties import *  # noqa: F403

from dendritic_bert.kernels import triton_configs
from dendritic_bert.kernels.triton_configs import Config

CUTS = {"whole rows": Config(4, 4), "pieces": Config(2, 4, chunk=8)}


@pytest.fixture(autouse=True, scope="module", params=CUTS.values(), ids=CUTS)
def _cut(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_configs, "candidates", lambda key: [request.param])
        yield
