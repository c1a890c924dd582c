"""`sfumato frontier` from end to end."""

import subprocess
import sys

import pytest

from tests.frontier.measured_bed import make_frontier, write_run

KINDS = ["csv", "json", "pdf", "png", "svg", "tex"]


@pytest.fixture
def runs(tmp_path):
    return [
        write_run(tmp_path / f"run{seed}", make_frontier(noise=0.4, seed=seed), training={"seed": seed}).path
        for seed in range(2)
    ]


def test_one_run_is_chosen_from(runs, sfumato):
    outcome = sfumato("frontier", runs[0], "--min-diversity", "0.9")
    assert outcome.code == 0 and outcome.err == ""
    assert "Choice: AIG power 4 (aig-power-4)" in outcome.out
    assert f"sfumato export {runs[0]} aig-power-4 --out guided" in outcome.out
    assert "Methods across runs" not in outcome.out and "written" not in outcome.out
    other = sfumato("frontier", runs[0], "--reward", "gold", "--diversity", "recall", "--budget", 20).out
    assert "gold" in other and "Choice: LoRA" in other


def test_runs_are_compared_and_everything_is_written(runs, sfumato, tmp_path):
    outcome = sfumato("frontier", *runs, "--out", tmp_path / "out", "--csv", tmp_path / "other.csv")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("Choice:") == 2 and "AIG > LoRA scale" in outcome.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"frontier.{kind}" for kind in KINDS]
    assert (tmp_path / "other.csv").read_bytes() == (tmp_path / "out/frontier.csv").read_bytes()
    for kind in KINDS:
        assert f"written: {tmp_path / 'out' / f'frontier.{kind}'}" in outcome.out


def test_thin_data_are_warned_of_and_no_failure(tmp_path, sfumato):
    path = write_run(tmp_path / "thin", make_frontier(noise=1.0, prompts=3)).path
    outcome = sfumato("frontier", path)
    assert outcome.code == 0 and "warning: Only 3 prompts" in outcome.out
    assert sfumato("frontier", path, "--min-diversity", "100%").code == 0


def test_an_older_file_without_newer_keys_will_do(tmp_path, sfumato):
    frontier = make_frontier(noise=0.5)
    for key in ("differences", "equal_compute", "calibration"):
        del frontier[key]
    for method in frontier["methods"]:
        method.pop("distribution")
    path = write_run(tmp_path / "old", frontier).path
    write_run(tmp_path / "new", make_frontier(noise=0.5), training={"seed": 1})
    outcome = sfumato("frontier", path, path.parent / "new", "--latex", tmp_path / "old.tex")
    assert outcome.code == 0 and (tmp_path / "old.tex").exists(), outcome.err


def test_bad_input_says_what_to_do(runs, sfumato, tmp_path, monkeypatch):
    def refused(*arguments):
        outcome = sfumato("frontier", *arguments)
        assert outcome.code == 1 and outcome.out == ""
        return outcome.err

    assert "is not a run folder" in refused(tmp_path / "nowhere")
    assert "given twice" in refused(runs[0], runs[0])
    assert "or a value as vendi>=2.1" in refused(runs[0], "--min-diversity", "2.1")
    assert f"{runs[1]}: there is no metric 'x'" in refused(runs[1], "--min-reward", "x>=1")
    assert "a figure ends in .pdf, .svg or .png" in refused(runs[0], "--figure", "x.bmp")
    (runs[1] / "evaluation/frontier.json").unlink()
    assert "run `sfumato evaluate" in refused(*runs)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'sfumato[figures]'" in refused(runs[0], "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_model_library_is_loaded(runs):
    program = (
        "import sys; sys.argv = ['sfumato', 'frontier', *sys.argv[1:]]\n"
        "from sfumato.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program, *map(str, runs)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
