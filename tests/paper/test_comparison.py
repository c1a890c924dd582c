"""The comparison across runs in words."""

from sfumato.frontier import choose, compare_runs, read_runs
from sfumato.paper.comparison import comparison_text
from sfumato.paper.tables import latex
from tests.frontier.measured_bed import make_frontier, write_run
from tests.frontier.test_many import BETTER, WORSE, write_many


def text_of(paths):
    return " ".join(comparison_text(compare_runs(read_runs(paths))).split())


def test_few_trainings_are_said_to_say_little(tmp_path):
    text = text_of(write_many(tmp_path, [BETTER, BETTER, BETTER]))
    assert "small-model, tuned on preference (emoji64); training seeds 0, 1, 2" in text
    assert "AIG > LoRA scale 3 of 3" in text and "1.00, 1.00, 1.00" in text
    assert "3 trainings: of two equal methods one would win all 3 with probability 0.25" in text
    assert "holds the median over all trainings with 75% only" in text
    assert "takes 6 of them, so there is none" in text


def test_enough_trainings_have_a_test(tmp_path):
    text = text_of(write_many(tmp_path, [make_frontier(noise=0.3, seed=seed) for seed in range(6)]))
    assert (
        "6 trainings, each with a seed of its own: p is the exact sign test" in text
        and "6 of 6" in text
        and "0.031" in text
    )
    assert "median difference" in text


def test_one_training_says_nothing_about_another(tmp_path):
    assert "One training: the probabilities are over prompts, and say nothing about another" in text_of(
        write_many(tmp_path, [BETTER])
    )


def test_a_run_that_tuning_did_not_change_has_no_hypervolumes(tmp_path):
    unchanged = make_frontier(noise=1.0, shift={"tuned": 3.6})  # as diverse as the base
    same = write_run(tmp_path / "same", unchanged, training={"seed": 9}).path
    text = text_of([*write_many(tmp_path, [BETTER]), same])
    assert "- same: tuning did not change vendi beyond noise, so there is no scale from base to tuned" in text
    assert "training seed 0 method run0 AIG" in text
    runs = read_runs([same, write_run(tmp_path / "again", unchanged, training={"seed": 8}).path])
    comparison = compare_runs(runs)
    assert "Methods across runs: none of these runs can be compared Left out" in " ".join(
        comparison_text(comparison).split()
    )
    assert latex(runs, [choose(run.frontier) for run in runs], comparison).count(r"\begin{tabular}") == 1


def test_what_varied_and_what_was_left_out_is_named(tmp_path):
    paths = write_many(tmp_path, [BETTER])
    paths.append(write_run(tmp_path / "other", WORSE, training={"seed": 1, "steps": 9}).path)
    paths.append(write_run(tmp_path / "large", BETTER, pipeline={"path": "large-model"}).path)
    paths.append(write_run(tmp_path / "bare", BETTER | {"methods": []}).path)
    text = text_of(paths)
    assert "These runs also differ in training.steps: their spread is not that of the training seed alone" in text
    assert "Over all 3 runs" in text and "so this is a count, not a test" in text
    assert "- bare: it has no operating points between base and tuned." in text
