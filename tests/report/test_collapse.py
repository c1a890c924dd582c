from sfumato.report.collapse import by_collapse
from tests.report.test_story import BASE, TUNED, point, world


def test_the_largest_loss_comes_first():
    base = BASE | {"per_prompt": {"vendi": [3.0, 5.0], "reward": [1.0, 2.0]}}
    tuned = TUNED | {"per_prompt": {"vendi": [2.0, 1.0], "reward": [4.0, 9.0]}}
    best = point("m", "AIG", 8.0, 4.0) | {"per_prompt": {"vendi": [2.5, 4.0]}}
    first, second = by_collapse(world(base, best, tuned), best)
    assert (first.text, first.loss, first.share, first.gain, first.regained) == ("b", 4.0, 1.0, 7.0, 0.75)
    assert (second.text, second.share, second.regained) == ("a", 0.5, 0.5)


def test_what_was_not_measured_is_left_out():
    base = BASE | {"per_prompt": {"vendi": [1.0, None]}}
    tuned = TUNED | {"per_prompt": {"vendi": [1.5, 1.0]}}
    (only,) = by_collapse(world(base, tuned), None)
    assert (only.text, only.share, only.gain, only.chosen, only.regained) == ("a", None, None, None, None)
    assert by_collapse(world(BASE, TUNED), None) == []
