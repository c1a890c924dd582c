import math

import pytest

from sfumato.frontier.plane import LESS_IS_BETTER
from sfumato.report import vocabulary


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.6, "1235"), (123.45, "123"), (12.345, "12.3"), (1.2345, "1.23"), (0.12345, "0.123"), (0, "0"),
        (-0.5, "\N{MINUS SIGN}0.500"), (0.0001234, "1.2e\N{MINUS SIGN}4"), (2.5e7, "2.5e7"), (2.2e-16, "0"),
        (None, "\N{EN DASH}"), (math.nan, "\N{EN DASH}"), (math.inf, "\N{EN DASH}"),
    ],
)  # fmt: skip
def test_numbers_have_three_significant_digits(value, text):
    assert vocabulary.number(value) == text


def test_methods_look_the_same_in_every_report_and_unlike_each_other():
    one = vocabulary.styles(["base", "KL", "mine", "AIG", "tuned"])
    two = vocabulary.styles(["AIG", "yours", "KL"])
    assert (one["AIG"], one["KL"]) == (two["AIG"], two["KL"])
    assert len(set(one.values())) == len(one)
    assert len({vocabulary.shape(style) for style in one.values() if style.startswith("m")}) == 3


def test_more_methods_than_marks_share_some():
    found = vocabulary.styles([f"method {i}" for i in range(20)])
    assert all(vocabulary.shape(style) for style in found.values())


def test_an_unknown_metric_is_called_by_its_key():
    assert vocabulary.metric("clip_score").label == "Clip score"


@pytest.mark.parametrize(
    ("key", "label", "group", "higher"),
    [
        ("pooled/fid", "FID, pooled", vocabulary.POOLED, False),
        ("pooled/new", "New, pooled", vocabulary.POOLED, True),
        ("drift/gold", "Gold reward, change", vocabulary.DRIFTED, True),
        ("drift/distance_to_base", "Distance from the base's image", vocabulary.DRIFTED, False),
        ("vendi_clip", "Vendi score in clip", vocabulary.DIVERSITY, True),
        ("vendi_corrected", "Vendi score, corrected", vocabulary.DIVERSITY, True),
        ("hue_entropy", "Hue entropy", vocabulary.DIVERSITY, True),
        ("style_coverage", "Style coverage", vocabulary.DIVERSITY, True),
        ("subcategory_coverage", "Subcategory coverage", vocabulary.DIVERSITY, True),
        ("pick_score", "Pick score", vocabulary.REWARDS, True),
    ],
)
def test_metrics_that_follow_a_pattern(key, label, group, higher):
    found = vocabulary.metric(key)
    assert (found.label, found.group, found.higher_is_better) == (label, group, higher)


def test_a_coverage_of_labels_says_what_it_is_a_share_of():
    assert "Share of the labels among the base's reference images" in vocabulary.metric("style_coverage").meaning
    assert "neighbourhood" in vocabulary.metric("coverage").meaning


def test_the_report_and_the_choice_agree_on_what_is_better_if_less():
    for key in LESS_IS_BETTER:
        assert not vocabulary.metric(f"drift/{key}" if key in vocabulary.DRIFT else key).higher_is_better, key
    of_training = {"loss", "kl", "data", "grad_norm", "seconds", "strength"}
    named = {**vocabulary.METRICS, **vocabulary.DRIFT}
    assert {key for key, entry in named.items() if not entry.higher_is_better} - of_training == LESS_IS_BETTER


def test_every_metric_belongs_to_a_group():
    assert {metric.group for metric in vocabulary.METRICS.values()} <= set(vocabulary.GROUPS)


def test_labels_inside_a_sentence():
    assert [vocabulary.lower_first(label) for label in ("Gold reward", "KL", "Vendi score")] == [
        "gold reward", "KL", "Vendi score"
    ]  # fmt: skip
