import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from sfumato.report import images, write_report
from sfumato.runs import Run, append_jsonl, read_json, write_json
from tests.report.conftest import PROMPTS, SEEDS
from tests.report.synthetic import METHODS, POINTS, RECIPE, UNRELATED, add_diagnosis, make_run


class Page(HTMLParser):
    """The texts of a page by element id, the scripts that run, and all references to other files."""

    def __init__(self, html: str):
        super().__init__()
        self.text, self.references, self.programs, self.ids, self.stack = "", [], 0, {}, []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.stack.append((tag, attributes))
        self.references += [value for name, value in attributes.items() if name in ("src", "href", "data")]
        self.programs += tag == "script" and "type" not in attributes
        if "id" in attributes:
            self.ids[attributes["id"]] = ""

    def handle_data(self, text):
        tag, attributes = self.stack[-1] if self.stack else ("", {})
        if "id" in attributes and tag == "script":
            self.ids[attributes["id"]] += text
        elif tag not in ("script", "style"):
            self.text += f" {text.strip()}" if text.strip() else ""

    @property
    def data(self) -> dict:
        return json.loads(self.ids["data"])


def read(run: Run) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def small(tmp_path, **changes) -> Run:
    return make_run(tmp_path / "run", PROMPTS[:2], SEEDS[:2], points=POINTS[:4], **changes)


def test_the_page_holds_everything_and_refers_to_nothing(run):
    html = run.report.read_text(encoding="utf-8")
    page = Page(html)
    assert page.references == [] and not re.search(r"@import|url\(\s*['\"]?(?!data:|\"\$)\w+:", html)
    assert "default-src 'none'" in html
    assert [point["label"] for point in page.data["points"]][::12] == ["base", "tuned"]
    assert len([name for name in page.ids if name.startswith("strip-")]) == len(POINTS) * (
        len(PROMPTS) + len(UNRELATED)
    )
    for words in (*METHODS, *RECIPE["description"].split()[1:], "steps: 120", "50", "torch"):
        assert words in page.text


def test_text_from_files_is_escaped(tmp_path):
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    points = [(p[0], evil if i == 2 else p[1], evil if i == 2 else p[2], *p[3:]) for i, p in enumerate(POINTS[:4])]
    run = make_run(tmp_path / "run", [evil, PROMPTS[2]], SEEDS[:2], points=points)
    write_json(run.path / "run.json", run.info | {"name": evil})
    run.recipe_path.write_text(f"description: '{evil}'\n")
    page = read(run)
    assert page.programs == 1 and page.references == []
    assert [prompt["text"] for prompt in page.data["prompts"]] == [evil, PROMPTS[2], *UNRELATED]
    assert evil in page.text
    assert "<script>alert" not in (run.path / "frontier.svg").read_text()


def test_importing_the_report_loads_no_model_library():
    code = "import sys, sfumato.report; print([m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_run_with_training_only(tmp_path):
    run = Run.create(tmp_path, RECIPE, "demo")
    append_jsonl(run.training("tuned") / "metrics.jsonl", [{"update": 1, "reward": 0.5}, {"update": 2, "reward": 0.7}])
    page = read(run)
    assert page.data["trainings"][0]["series"] == {"reward": [0.5, 0.7]}
    assert "Not evaluated yet" in page.text and "frontier" not in page.ids and "wall" not in page.ids
    assert not (run.path / "frontier.svg").exists()


def test_an_empty_run(tmp_path):
    page = read(Run.create(tmp_path, RECIPE, "demo"))
    assert "Repeat it" in page.text and "curves" not in page.ids


def test_images_without_measurements_make_a_wall(tmp_path):
    run = small(tmp_path)
    (run.evaluation / "frontier.json").unlink()
    page = read(run)
    assert "wall" in page.ids and "frontier" not in page.ids
    assert f"Not measured yet: {len(run.images())} images were sampled so far." in page.text
    assert "this page shows the training alone" not in page.text
    assert {"base", "tuned"} < {point["name"] for point in page.data["points"]}


def test_measurements_without_images_make_a_frontier(tmp_path):
    run = small(tmp_path)
    (run.evaluation / "images.jsonl").unlink()
    page = read(run)
    assert "frontier" in page.ids and "wall" not in page.ids


def test_missing_figures_and_files_leave_gaps_only(tmp_path):
    run = small(tmp_path)
    frontier = read_json(run.evaluation / "frontier.json")
    del frontier["points"][2]["metrics"]["gold"], frontier["points"][2]["per_prompt"], frontier["points"][2]["forwards"]
    frontier["points"][3]["metrics"]["vendi"] = None
    frontier["points"][3]["metrics"]["distance"] = {"mean": math.nan}
    frontier["points"][3]["metrics"]["new_measure"] = {"mean": 0.5}
    del frontier["ceiling"], frontier["comparisons"]
    write_json(run.evaluation / "frontier.json", frontier)
    (run.evaluation / run.images()[0]["file"]).unlink()
    append_jsonl(run.training("kl") / "metrics.jsonl", [{"update": 121, "reward": math.nan}])
    page = read(run)
    first, second = (
        next(p for p in page.data["points"] if p["name"] == name) for name in ("aig-power-1", "aig-power-2")
    )
    assert "gold" not in first["metrics"] and first["perPrompt"] == {}
    assert "vendi" not in second["metrics"] and second["metrics"]["distance"] == [None, None, None]
    assert "New measure" in page.text
    assert page.data["trainings"][1]["series"]["reward"][-1] is None


def test_missing_pictures_are_counted_and_without_any_there_is_no_wall(tmp_path):
    run = small(tmp_path)
    assert "Missing pictures" not in read(run).text
    first, *_ = (run.evaluation / record["file"] for record in run.images() if record["point"] == "base")
    first.unlink()
    page = read(run)
    assert "Missing pictures: 1 of 24; sfumato evaluate RUN makes them again" in " ".join(page.text.split())
    assert "wall" in page.ids
    shutil.rmtree(run.evaluation / "images")
    page = read(run)
    assert "Missing pictures: 24 of 24; sfumato evaluate RUN" in " ".join(page.text.split())
    assert {"frontier", "prompts", "stages"} <= page.ids.keys()
    assert not {"wall", "pairs"} & page.ids.keys() and not any(name.startswith("strip-") for name in page.ids)


def test_hypervolumes_without_a_scale_are_not_shown(tmp_path):
    run = small(tmp_path)
    page = read(run)
    assert "How sure is the order?" in page.text and page.data["equalCompute"]
    frontier = read_json(run.evaluation / "frontier.json")
    frontier["points"][0]["versus_tuned"]["vendi"] = {"mean": 0.1, "low": -0.2, "high": 0.4}
    write_json(run.evaluation / "frontier.json", frontier)
    page = read(run)
    assert "No hypervolumes: tuning did not change the Vendi score (tuned minus base" in page.text
    assert "How sure is the order?" not in page.text and "largest hypervolume" not in page.text
    assert page.data["equalCompute"] == [] and "view-strength" in page.ids


def test_the_reference_images_are_not_an_operating_point(run):
    assert "reference" in {record["point"] for record in run.images()}
    assert "reference" not in {point["name"] for point in Page(run.report.read_text()).data["points"]}


def test_methods_go_from_base_to_tuned(run):
    methods = {method["name"]: method["points"] for method in Page(run.report.read_text()).data["methods"]}
    assert methods["AIG"] == ["base", "aig-power-4", "aig-step-0.6", "aig-power-2", "aig-power-1", "tuned"]


def test_a_cap_on_pictures_is_stated(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "PIXEL_BUDGET", 4 * 4 * 64 * 64)
    run = make_run(tmp_path / "run", PROMPTS[:2], SEEDS, points=POINTS[:4])
    page = read(run)
    assert [len(prompt["seeds"]) for prompt in page.data["prompts"]] == [4]
    assert re.search(r"shows 1 of 3 prompts with\s+4 of 5 images each", page.text)


def test_unequal_methods_are_said_to_be_unequal(run):
    assert re.search(r"Not like for like: KL\s+has another number of points", Page(run.report.read_text()).text)


NEW_KEYS = ("differences", "equal_compute", "small_n")


def test_a_run_of_an_older_version_gets_the_parts_that_it_has(tmp_path):
    run = small(tmp_path)
    frontier = read_json(run.evaluation / "frontier.json")
    frontier = {key: value for key, value in frontier.items() if key not in NEW_KEYS}
    for point in frontier["points"]:
        del point["pooled"], point["drift"]
    write_json(run.evaluation / "frontier.json", frontier)
    (run.evaluation / "features.safetensors").unlink()
    page = read(run)
    assert {"frontier", "wall", "prompts", "stages"} <= page.ids.keys()
    assert not {"pairs", "samples", "repeats-data"} & page.ids.keys()
    assert "pooled" not in page.text and page.data["differences"] == []


def test_features_of_other_images_are_left_out(tmp_path):
    run = small(tmp_path)
    append_jsonl(run.evaluation / "images.jsonl", [run.images()[-1] | {"seed": 5}])
    assert "pairs" not in read(run).ids


def test_a_diagnosis_stands_first_with_its_pictures(tmp_path):
    run = small(tmp_path)
    assert "Diagnosis" not in read(run).text
    diagnosis = add_diagnosis(run)
    page = read(run)
    assert page.text.index("Diagnosis") < page.text.index("Reward against diversity")
    for words in (diagnosis["verdict"], *diagnosis["sentences"], diagnosis["findings"][0]["text"]):
        assert words in page.text
    assert len(page.ids["evidence-0-0"].strip()) > 50 and "evidence-0-1" not in page.ids


def test_a_recommended_point_says_what_the_alarm_thinks_of_it(tmp_path):
    run = small(tmp_path)
    entries = [
        {"name": "aig-power-1", "verdict": "hacked", "levels": {"rewards": "alarm", "modes": "ok"}},
        {"name": "aig-power-2", "verdict": "sound", "levels": {"rewards": "ok"}},
    ]
    write_json(run.evaluation / "diagnosis.json", add_diagnosis(run) | {"points": entries})
    text = read(run).text
    assert "Diagnosis of this point: hacked (rewards)." in text and "Diagnosis of this point: sound." in text
    assert text.count("Diagnosis of this point") == 2


def test_a_diagnosis_cannot_bring_in_files_from_elsewhere(tmp_path):
    run = small(tmp_path)
    diagnosis = add_diagnosis(run)
    (run.evaluation / "diagnosis" / "duplicates.png").rename(tmp_path / "outside.png")
    diagnosis["findings"][0]["evidence"] = [{"file": "../outside.png", "caption": "x"}]
    write_json(run.evaluation / "diagnosis.json", diagnosis)
    assert "evidence-0-0" not in read(run).ids


def test_the_curves_know_where_points_were_taken(run):
    tuned, kl = Page(run.report.read_text()).data["trainings"]
    assert [update for update, _ in tuned["marks"]] == [40, 120] and tuned["marks"][0][1] == "Update 40"
    assert kl["marks"] == [[120, "KL 0.1"]]


def test_a_report_is_rewritten_in_place(tmp_path):
    run = small(tmp_path)
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first and run.report == run.path / "report.html"


@pytest.mark.parametrize("name", ["report.html", "frontier.svg"])
def test_a_small_run_makes_small_files(run, name):
    assert 2_000 < (run.path / name).stat().st_size < 500_000
