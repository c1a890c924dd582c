"""Tables: every figure in its place, and LaTeX that is well formed."""

import csv
import io
import json
import re
import shutil
import subprocess

import pytest

from sfumato.frontier import choose, compare_runs, read_runs
from sfumato.paper.tables import csv_table, escaped, json_text, latex
from tests.frontier.measured_bed import POINTS, make_frontier, write_run

HOSTILE = "50% of a_b & {c} #1 $x$ ~^\\ \N{EN DASH} \N{MINUS SIGN}1"


@pytest.fixture
def runs(tmp_path):
    frontiers = [make_frontier(noise=0.4, seed=seed) for seed in range(2)]
    frontiers[0]["points"][3]["label"] = HOSTILE
    frontiers[0]["points"][2] |= {"pooled": {"fid": 3.5}, "drift": {"gold": {"mean": -0.5, "low": -1.0, "high": 0.25}}}
    for seed, frontier in enumerate(frontiers):
        write_run(tmp_path / f"run_{seed}", frontier, training={"seed": seed})
    return read_runs([tmp_path / "run_0", tmp_path / "run_1"])


@pytest.fixture
def choices(runs):
    return [choose(run.frontier, min_diversity=0.5) for run in runs]


def test_the_csv_has_a_row_for_each_point_and_a_column_for_each_figure(runs, choices):
    rows = list(csv.DictReader(io.StringIO(csv_table(runs, choices))))
    assert [(row["run"], row["point"]) for row in rows] == [
        (run, name) for run in ("run_0", "run_1") for name in POINTS
    ]
    assert [row["point"] for row in rows if row["chosen"] == "True"] == [choice.chosen.name for choice in choices]
    for run, row in zip([runs[0]] * 6 + [runs[1]] * 6, rows, strict=True):
        point = next(point for point in run.frontier["points"] if point["name"] == row["point"])
        for key in ("reward", "gold", "vendi", "recall"):
            value = point["metrics"][key]
            assert [float(row[key]), float(row[f"{key}_low"]), float(row[f"{key}_high"])] == list(value.values())
        assert (row["nondominated"] == "True") == point["nondominated"]
        assert float(row["forwards"]) == point["forwards"]
    assert rows[3]["label"] == HOSTILE and rows[6]["training_seed"] == "1"
    assert rows[2]["pooled_fid"] == "3.5" and rows[2]["drift_gold_low"] == "-1.0"
    assert rows[1]["pooled_fid"] == rows[1]["drift_gold"] == ""


def test_the_json_holds_everything(runs, choices):
    comparison = compare_runs(runs)
    found = json.loads(json_text(runs, choices, comparison))
    assert found["runs"][1]["frontier"] == runs[1].frontier
    assert found["runs"][0]["choice"]["chosen"]["name"] == choices[0].chosen.name
    assert found["comparison"]["groups"][0]["runs"] == {"run_0": 0, "run_1": 1}
    assert json.loads(json_text(runs[:1], choices[:1], None))["comparison"] is None


def check_latex(text):
    """Balanced groups and environments, closed mathematics, and equally many cells in all rows of a table."""
    bare = re.sub(r"\\[\\%$#&_{}]", "", re.sub(r"(?m)^%.*$", "", text).replace(r"\\", "\n"))
    assert all(ord(letter) < 128 for letter in bare)
    depth = 0
    for letter in bare:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0 and bare.count("$") % 2 == 0
    assert not re.search(r"[#~]", bare)
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", text):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert opened == []
    for spec, body in re.findall(r"\\begin\{tabular\}\{@\{\}(\w+)@\{\}\}(.*?)\\end\{tabular\}", text, re.S):
        rows = [line for line in body.splitlines() if line.endswith(r" \\") and r"\multicolumn" not in line]
        assert len(rows) > 1
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(spec)}
        assert all(f"{{{len(spec)}}}" in line for line in body.splitlines() if r"\multicolumn" in line)
        assert body.count(r"\toprule") == body.count(r"\bottomrule") == 1


def test_the_latex_is_well_formed_and_says_what_is_what(runs, choices):
    text = latex(runs, choices, compare_runs(runs))
    check_latex(text)
    assert text.count(r"\begin{tabular}") == 3
    assert r"Brackets are 95\,\% bootstrap intervals over prompts" in text
    assert r"run\_0: small-model, tuned on preference (emoji64), seed 0" in text
    assert r"50\% of a\_b \& \{c\} \#1 \$x\$ \textasciitilde{}\textasciicircum{}\textbackslash{} -- $-$1" in text
    assert len(re.findall(r"\^\\dagger\$ &", text)) == 2
    for point in runs[1].frontier["points"]:
        label = rf"\textbf{{{point['label']}}}" if point["nondominated"] else point["label"]
        assert re.search(rf"^{re.escape(label)}(\$\^\\dagger\$)? & ", text, re.M)
    value = runs[1].frontier["points"][0]["metrics"]["vendi"]
    assert rf"\textbf{{{value['mean']:.2f}}} {{\scriptsize [{value['low']:.2f}, {value['high']:.2f}]}}" in text


def test_one_run_is_one_table(runs, choices):
    text = latex(runs[1:], choices[1:], None)
    check_latex(text)
    assert text.count(r"\begin{tabular}") == 1 and r"\multicolumn" not in text
    assert "Operating points of small-model tuned on preference (emoji64): means over 24 prompts with 8 images" in text


def test_every_special_letter_is_escaped():
    assert escaped("a\\b") == r"a\textbackslash{}b"
    check_latex(escaped(HOSTILE))


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no TeX here")
def test_the_latex_compiles_without_overfull_lines(runs, choices, tmp_path):
    head = r"\documentclass{article}\usepackage[margin=0.875in]{geometry}\usepackage{booktabs}\begin{document}"
    source = "\n".join([head, latex(runs, choices, compare_runs(runs)), r"\end{document}"])
    (tmp_path / "paper.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert "Overfull" not in done.stdout
