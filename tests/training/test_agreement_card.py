"""The card of a student of texts without labels: what the model can tell apart, its teacher, and both licences."""

from dendritic_bert import DendriticBertConfig
from dendritic_bert.training.agreement_card import write_agreement_card
from dendritic_bert.training.distillation_options import DistillationOptions


def test_many_labels_and_several_seeds(tmp_path):
    config = DendriticBertConfig(id2label={number: f"intent {number}" for number in range(150)}, window_dendrites=32,
                                 window_layers=5, max_position_embeddings=0, embedding_norm="none",
                                 pooling="gated_mean")
    options = DistillationOptions(teacher=str(tmp_path), text_file="queries.txt", epochs=3)
    runs = [{"seed": seed, "agreement": 0.9 + seed / 100, "standard_error": 0.003, "seconds": 5.0} for seed in (0, 1)]
    results = {"runs": runs, "metric": "agreement", "mean": 0.905, "sd": 0.0071, "majority": 0.25, "num_dev": 1000,
               "num_train": 9000, "num_truncated": 0, "source": "queries.txt", "seconds": 9.0,
               "live_parameters": {"all": 60, "embeddings": 30, "windows": 20, "encoder": 0, "head": 10}}
    write_agreement_card(tmp_path / "card.md", options, results, config)
    card = (tmp_path / "card.md").read_text()
    assert "`intent 0`, " in card
    assert "`intent 19` and 130 more." in card
    assert "dendrites that see windows of up to 63 tokens, and a gated mean" in card
    assert "20 in the windows and gate" in card
    assert "for **90.0 %** (standard error 0.3)" in card
    assert "Mean agreement over 2 seeds: **0.9050**" in card
    assert "licence: not stated in its card" in card
