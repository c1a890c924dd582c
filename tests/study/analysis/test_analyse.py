"""From a run over a study and simulated raters to the report, by the command line."""

import csv
import json
import re

import pytest
from typer.testing import CliRunner

from sfumato.cli.study import app
from sfumato.study import Study
from sfumato.study.analysis import analyse_study
from sfumato.study.analysis.automatic import read_automatic
from sfumato.study.analysis.page import study_page
from tests.report.synthetic import make_run
from tests.study.analysis.votes_of import row
from tests.study.bed import ALL_KINDS, make_study

POINTS = ("base", "tuned", "aig-power-2")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    run = make_run(folder / "run", ["fruit", "a bird", "boat", "bus", "rose", "cat"], list(range(8)))
    points = {name: {"run": str(run.path)} for name in POINTS}
    return make_study(folder, points=points, votes_per_item=5, name="<b>ask</b>")


@pytest.fixture(scope="module")
def analysed(study, tmp_path_factory):
    """The folder of the analysis, and the votes as they were exported."""
    runner = CliRunner()
    simulated = runner.invoke(app, ["study", "simulate", str(study.path), "--raters", "40", "--measure", "reward"])
    assert simulated.exit_code == 0, simulated.output
    exported = runner.invoke(app, ["study", "export", str(study.path)])
    done = runner.invoke(app, ["study", "analyse", str(study.path)])
    assert done.exit_code == 0, done.output
    return study.path / "analysis", [json.loads(line) for line in exported.stdout.splitlines()]


def test_the_report_needs_nothing_but_itself_and_says_what_was_found(analysed):
    page = (analysed[0] / "report.html").read_text()
    assert not re.search(r"(src|href)=", page) and "http" not in page.replace("http-equiv", "")
    assert "<b>ask" not in page and "&lt;b&gt;ask" in page
    assert re.search("<h1>Simulated raters (prefer (tuned|AIG power 2) to base in|show no sure preference)", page)
    assert re.search(r"raters are simulated: these votes come from a\s+program", page)
    table = re.search('<table class="figures beside">(.*?)</table>', page, re.S)[1]
    titles = re.findall('<th scope="col" class="number">(.*?)</th>', table)
    assert titles == ["Human preference", "Perceived diversity", "Reward", "Gold reward", "Vendi score", "Recall"]
    labels = re.findall(r'<svg viewBox="0 36.*?aria-label="(.*?):', page)
    assert labels == [
        "Perceived diversity against human preference",
        "Vendi score against reward",
        "Vendi score against gold reward",
    ]


def test_the_files_hold_the_tables(analysed):
    folder, rows = analysed
    found = json.loads((folder / "analysis.json").read_text())
    assert found["votes"] == sum(not each["excluded"] and each["passed"] is None for each in rows)
    assert found["simulated"] == len(found["rater_table"]) and [q["kind"] for q in found["questions"]] == [
        k["kind"] for k in ALL_KINDS
    ]
    tables = {path.stem: list(csv.DictReader(path.open())) for path in folder.glob("*.csv")}
    assert tables.keys() == {"raters", "win_rates", "ratings", "differences", "strengths", "predictions"}
    first = tables["win_rates"][0]
    assert float(first["share"]) == pytest.approx(found["questions"][0]["win_rates"][0]["share"])
    assert float(first["low"]) <= float(first["share"]) < float(first["high"])
    assert float(first["p_adjusted"]) >= float(first["p"])


def test_what_simulated_raters_like_by_is_found_to_foresee_them_best(analysed):
    found = json.loads((analysed[0] / "analysis.json").read_text())
    best = {question["kind"]: question["predictions"][0] for question in found["questions"]}
    assert best["pair"]["measure"] == best["rank"]["measure"] == "reward" and best["pair"]["clustered_low"] > 0.6
    gold = next(each for each in found["questions"][0]["predictions"] if each["measure"] == "gold")
    assert gold["share"] == 0.5 and gold["correlation"] == 0, "all pictures have the same gold"
    assert best["variety"]["share"] > 0.7


def test_exported_votes_are_analysed_like_those_of_the_database(analysed, study, tmp_path, sfumato):
    folder, rows = analysed
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    done = sfumato("study", "analyse", study.path, "--votes", tmp_path / "votes.jsonl", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    first, second = (json.loads((path / "analysis.json").read_text()) for path in (folder, tmp_path / "out"))
    assert {**first, "created": 0} == {**second, "created": 0}


def test_excluded_raters_are_left_out_and_shown_beside(study):
    names = ("base", "tuned")
    good = [row(names, 1, n, rater=f"r{n % 5}", prompt=f"{n % 3}") for n in range(30)]
    bad = [row(names, 0, n, rater="careless", prompt="0", excluded=["too fast"]) for n in range(20)]
    found = analyse_study(study, good + bad, 100)
    (question,) = found["questions"]
    assert question["win_rates"][0]["share"] == 0 and question["all_votes"]["win_rates"][0]["share"] == 0.4
    assert found["excluded"] == {"careless": ["too fast"]} and found["excluded_votes"] == 20
    with pytest.raises(ValueError, match=r"no votes to analyse \(20 are of raters who are left out"):
        analyse_study(study, bad)


def test_the_page_says_the_surest_difference_or_that_there_is_none(study):
    def page(share):
        rows = [
            row(("base", "tuned"), int(n % 10 >= share), n, rater=f"r{n % 11}", prompt=f"{n % 7}", kind=kind)
            for kind in ("pair", "variety")
            for n in range(77)
        ]
        return study_page(analyse_study(study, rows, 100))

    assert re.search(r"<h1>People prefer tuned to base in 90\s%", page(1))
    assert re.search(r"People find tuned more varied than base in 90\s% of 77 comparisons", page(1))
    assert re.search(r"<h1>People prefer base to tuned in 82\s%", page(8))
    assert "<h1>People show no sure preference" in page(5) and "no sure difference in variety" in page(5)


def test_a_run_that_is_gone_is_said_and_costs_the_measures_alone(study, tmp_path):
    study.path.rename(tmp_path / "moved")
    try:
        moved = Study.load(tmp_path / "moved")
        found = analyse_study(moved, [row(("base", "tuned"), n % 2, n, rater=f"r{n % 4}") for n in range(12)], 100)
        assert len(found["automatic"]["missing"]) == 3 and found["questions"][0]["predictions"] == []
    finally:
        (tmp_path / "moved").rename(study.path)
    assert read_automatic(study).missing == []


def test_measures_are_those_of_the_pictures_files(study):
    automatic = read_automatic(study)
    for item in study.items.values():
        for option in item.options if item.check is None else ():
            assert all(automatic.pictures[f"images/{image}"]["gold"] == 0.4 for image in option.images)
    assert automatic.sets["base", "fruit"]["vendi"] > automatic.sets["tuned", "fruit"]["vendi"]
    assert automatic.axes == ("reward", "vendi") and automatic.points["aig-power-2"]["label"] == "AIG power 2"
