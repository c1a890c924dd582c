from sfumato.report.table import LEGEND, frontier_table
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
