"""Dendrites grow while a stock Trainer trains, by PerforatedAI's tracker and by the plain rule."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from helpers import REPOSITORY
from parity import accuracy, parity_rows
from parity_training import RULES, Log, make_training
from transformers import TrainerCallback
from two_ranks import run_two_ranks

from dendritic_bert import DendriticBertForSequenceClassification, DendriticLinear
from dendritic_bert.model.dendritic_linear import dendritic_layers
from dendritic_bert.model.perforatedai_checkpoint import read_perforated

pytest.importorskip("perforatedai.globals_perforatedai", reason="perforatedai is not installed")
each_rule = pytest.mark.parametrize("rule", RULES)
DENDRITES = [0] * 4 + [1] * 3 + [2] * 3 + [2] * 4  # of the epochs, of which SCORES would allow two more


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Runs each test in an empty folder, in which nothing may appear."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert list(folder.iterdir()) == []
    assert Path.cwd() == folder


def final_weights(growing) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in growing.trainer.model.state_dict().items()}


def assert_same(a, b, exactly: bool = True) -> None:
    assert a.keys() == b.keys()
    for name in a:
        tolerance = 0 if exactly else 1e-4
        torch.testing.assert_close(a[name], b[name], rtol=tolerance, atol=tolerance)


class Whole(NamedTuple):
    """A training that was not interrupted."""

    rows: list
    weights: dict[str, torch.Tensor]
    folder: Path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Whole]:
    found = {}
    for rule in RULES:
        log, folder = Log(), tmp_path_factory.mktemp(rule)
        growing = make_training(folder, rule, callbacks=(log,))
        growing.train()
        found[rule] = Whole(log.rows, final_weights(growing), folder)
    return found


@each_rule
def test_parity(tmp_path, rule):
    """A linear head stays at chance, and two dendrites learn the task; the model is an ordinary one at the end."""
    log = Log()
    growing = make_training(tmp_path / "out", rule, epochs=30, steps=10, patience=8, scores=None, callbacks=(log,),
                            lr_scheduler_type="constant", save_strategy="no")
    growing.train()
    best = {count: max(row[1] for row in log.rows if row[0] == count) for count in range(3)}
    assert best[0] <= 0.6
    assert best[2] == 1.0
    model = growing.trainer.model
    assert model.config.num_dendrites == model.classifier.num_dendrites == 2
    assert accuracy(model.eval(), parity_rows(1)) == 1.0
    model.save_pretrained(tmp_path / "saved")
    again = DendriticBertForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert accuracy(again, parity_rows(1)) == 1.0


@each_rule
@pytest.mark.parametrize("head_hidden", [None, 3])
def test_stages(tmp_path, rule, head_hidden, capsys):
    """Each has a new optimizer and a learning rate that falls to 0 over its longest duration: 5 epochs of 2 steps."""
    log = Log()
    growing = make_training(tmp_path / "out", rule, callbacks=(log,), head_hidden=head_hidden)
    growing.train()
    assert [count for count, _, _ in log.rows] == DENDRITES
    assert len(log.optimizers) == 4
    expected = [0.05 * (1 - (epoch + 1) / 5) for length in (4, 3, 3, 4) for epoch in range(length)]
    assert [rate for _, _, rate in log.rows] == pytest.approx(expected)
    layers = dendritic_layers(growing.trainer.model)
    assert len(layers) == (1 if head_hidden is None else 2)
    assert {layer.num_dendrites for layer in layers.values()} == {2}
    assert "PAI" not in capsys.readouterr().out


def test_both_rules_train_alike(whole):
    """Both give the same dendrites, learning rates and weights."""
    assert whole["perforatedai"].rows == whole["plain"].rows
    assert_same(whole["perforatedai"].weights, whole["plain"].weights, exactly=False)


def test_what_perforatedai_leaves(tmp_path):
    """It leaves its best weights, which are the model's, its configuration, and the graph and tables of the growth."""
    growing = make_training(tmp_path / "out", "perforatedai", save_strategy="no")
    growing.train()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["PAI"]
    files = {path.name for path in (tmp_path / "out" / "PAI").iterdir()}
    assert {"PAI.png", "PAI_config.json", "best_model.pt"} <= files
    assert {Path(name).suffix for name in files} == {".png", ".json", ".pt", ".csv"}
    checkpoint = read_perforated(tmp_path / "out" / "PAI" / "best_model.pt")
    assert (checkpoint.num_dendrites, checkpoint.activation) == (2, "sigmoid")
    assert_same(checkpoint.state_dict, final_weights(growing))


# ---- interrupted -----------------------------------------------------------------------------------------------------


class Interrupt(TrainerCallback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, args, state, control, **_):
        if round(state.epoch) == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("rule", "epoch"), [("perforatedai", 1), ("plain", 4), ("perforatedai", 9), ("plain", 12)])
def test_an_interrupted_training_goes_on(tmp_path, whole, rule, epoch):
    """In the first stage, just after a dendrite has grown, or while the second is tried: the result is the same."""
    interrupted = make_training(tmp_path / "out", rule, callbacks=(Interrupt(epoch),))
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()
    torch.manual_seed(99)
    log = Log()
    resumed = make_training(tmp_path / "out", rule, callbacks=(log,), start=epoch)
    resumed.train(str(next((tmp_path / "out").glob("checkpoint-*"))))
    assert log.rows == whole[rule].rows[epoch:]
    assert_same(final_weights(resumed), whole[rule].weights)
    assert len(list((tmp_path / "out").glob("growth-*"))) <= 2


@each_rule
def test_a_training_that_was_done_is_not_trained_on(tmp_path, whole, rule):
    """The interruption comes between the last checkpoint and the end of the training."""
    shutil.copytree(whole[rule].folder, tmp_path / "out")
    resumed = make_training(tmp_path / "out", rule, scores=())
    resumed.train(str(next((tmp_path / "out").glob("checkpoint-*"))))
    assert_same(final_weights(resumed), whole[rule].weights)


# ---- several processes -----------------------------------------------------------------------------------------------


def test_two_processes(tmp_path, whole):
    """Two gloo ranks with half a batch each have the same weights, which are those of one process but for rounding."""
    run_two_ranks(REPOSITORY / "tests" / "support" / "parity_training.py", tmp_path)
    for rule in RULES:
        ranks = [torch.load(tmp_path / f"{rule}-{rank}.pt") for rank in range(2)]
        assert_same(ranks[0]["weights"], ranks[1]["weights"])
        assert ranks[0]["rows"] == ranks[1]["rows"] == whole[rule].rows
        assert_same(ranks[0]["weights"], whole[rule].weights, exactly=False)


# ---- what PerforatedAI does instead of raising -----------------------------------------------------------------------


def test_its_exits_are_errors(tmp_path):
    """For a shape that it was not told of, it calls sys.exit(0) in the middle of a backward pass."""
    growing = make_training(tmp_path / "out", "perforatedai")
    growing.trainer.model.classifier.set_this_output_dimensions([-1, -1, 0])
    with pytest.raises(RuntimeError, match=r"^PerforatedAI ended the training \(SystemExit\(0\)\)"):
        growing.train()


@each_rule
def test_a_head_on_every_token(tmp_path, rule):
    """For question answering, the library is told that its layer sees rows of tokens."""
    from dendritic_bert import DendriticBertConfig
    from dendritic_bert.growth.perforatedai_rule import PerforatedGrowth
    from dendritic_bert.growth.rule import Growth, Outcome
    from dendritic_bert.model.modeling import DendriticBertForQuestionAnswering

    model = DendriticBertForQuestionAnswering(DendriticBertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=0, num_attention_heads=1, max_position_embeddings=8))
    grows = Growth(model, 1) if rule == "plain" else PerforatedGrowth(model, 1, tmp_path / "out")
    for expected in (Outcome.GREW, Outcome.DONE):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        model(torch.arange(6)[None], start_positions=torch.tensor([1]), end_positions=torch.tensor([3])).loss.backward()
        optimizer.step()
        assert grows.add_score(0.5, stage_is_over=True, optimizer=optimizer) is expected
    grows.finish()
    assert type(model.qa_outputs) is DendriticLinear
    assert model.config.num_dendrites == model.qa_outputs.num_dendrites == 1


def test_its_debugger_is_an_error(tmp_path):
    """It opens a debugger if a layer never had a gradient."""
    rule = make_training(tmp_path / "out", "perforatedai").rule
    optimizer = torch.optim.SGD(rule.model.parameters(), 0.1)
    with pytest.raises(RuntimeError, match=r"^PerforatedAI gave up .*it opened a debugger.*: .* missing .{,300}$"):
        rule.add_score(0.5, stage_is_over=True, optimizer=optimizer)


def test_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"perforatedai is not installed: .*, or grow by the same rule without it"):
        make_training(tmp_path / "out", "perforatedai")


def test_dendrites_that_are_there_already(tmp_path):
    from dendritic_bert.growth.perforatedai_rule import PerforatedGrowth

    with pytest.raises(ValueError, match="have dendrites already"):
        PerforatedGrowth(torch.nn.Sequential(DendriticLinear(3, 2, 1)), 2, tmp_path / "out")
