from sfumato.report.table import LEGEND, frontier_table
from tests.frontier.measured_bed import make_frontier
from tests.report.synthetic import frontier


def test_every_point_and_method_has_its_line_and_unequal_methods_are_marked():
    found = frontier(["a", "b"], 2)
    text = frontier_table(found)
    for point in found["points"]:
        (line,) = [line for line in text.split("\n") if f"  {point['label']}  " in line]
        assert line.startswith("*") == point["nondominated"]
        assert line.endswith(f"{point['forwards']:.1f}") and f"{point['metrics']['vendi']['mean']:.3f}" in line
    assert f"\n\n{LEGEND}\n\nhypervolume" in text
    assert "\nAIG: 0.740 [0.690, 0.795]\n" in text
    assert "\nKL: 0.640 [0.590, 0.695] (another number of points: not like for like)\n" in text
    assert "P(AIG > LoRA scale) = 0.69" in text


def test_warnings_come_last():
    warned = {**frontier(["a", "b"], 2), "warnings": ["tuning did not raise reward"]}
    assert frontier_table(warned).endswith("\n\nwarning: tuning did not raise reward")


def test_a_sentence_stands_for_hypervolumes_without_a_scale():
    text = frontier_table(make_frontier(noise=1.0, shift={"tuned": 3.6}))
    assert f"\n\n{LEGEND}\n\nNo hypervolumes: tuning did not change the Vendi score (tuned minus base " in text
    assert "hypervolume (95" not in text and "P(AIG" not in text
    assert "No hypervolumes" not in frontier_table(make_frontier(noise=1.0))
