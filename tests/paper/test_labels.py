"""Labels beside their marks."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.paper.labels import nearest, overlap, place_labels

FRAME = (0.0, 0.0, 200.0, 150.0)
MARKS = st.lists(st.tuples(st.floats(0, 200), st.floats(0, 150)), min_size=1, max_size=12)


@settings(max_examples=40)
@given(MARKS, st.tuples(st.floats(5, 60), st.floats(5, 12)))
def test_no_label_covers_a_mark_or_a_label_or_leaves_the_frame(marks, size):
    boxes = place_labels(marks, [size] * len(marks), FRAME, [])
    placed = [box for box in boxes if box is not None]
    for i, box in enumerate(placed):
        assert abs(box[2] - box[0] - size[0]) < 1e-9 and abs(box[3] - box[1] - size[1]) < 1e-9
        assert box[0] >= 0 and box[1] >= 0 and box[2] <= 200 and box[3] <= 150
        assert not any(overlap(box, other) for other in placed[:i])
        assert not any(overlap(box, (x - 4, y - 4, x + 4, y + 4)) for x, y in marks)


def test_a_lone_label_is_right_beside_its_mark():
    (box,) = place_labels([(100, 75)], [(30, 8)], FRAME, [])
    assert box == (105, 71, 135, 79)


def test_a_label_gives_way_to_a_line():
    line = ((100.0, 75.0), (200.0, 75.0))
    (box,) = place_labels([(100, 75)], [(30, 8)], FRAME, [line])
    assert box[1] > 75 or box[3] < 75 or box[2] < 100


def test_where_there_is_no_room_there_is_no_label():
    assert place_labels([(100, 75)], [(300, 8)], FRAME, []) == [None]
    first, second = place_labels([(10, 5), (10, 5)], [(18, 9), (18, 9)], (0, 0, 34, 10), [])
    assert first is not None and second is None


def test_the_nearest_point_of_a_box():
    assert nearest((0, 0, 2, 1), (5, 0.5)) == (2, 0.5)
    assert nearest((0, 0, 2, 1), (1, 0.5)) == (1, 0.5)
