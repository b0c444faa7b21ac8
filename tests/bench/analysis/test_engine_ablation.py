"""bench/analysis/engine_ablation.py: each variant still finds what it replaces in csrc/engine."""

import pytest
from engine_ablation import VARIANTS, WHOLE, Variant, write_sources


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_variant_is_another_engine(variant, tmp_path):
    sources = write_sources(variant, tmp_path / "variant")
    assert {"model.cpp", "tokenizer.cpp"} < {path.name for path in sources}
    write_sources(WHOLE, tmp_path / "whole")
    changed = {path.name for path in (tmp_path / "variant/csrc/engine").iterdir()
               if path.read_bytes() != (tmp_path / "whole/csrc/engine" / path.name).read_bytes()}
    assert changed == {name for name, _, _ in variant.replacements}
    assert bool(changed or variant.environment or variant.threads > 1) == (variant is not WHOLE)


def test_a_source_that_has_changed_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"model\.cpp has 'no such line' 0 times, and 'gone' replaces it once"):
        write_sources(Variant("gone", (("model.cpp", "no such line", ""),)), tmp_path / "variant")
