"""The protocol of votes in both databases, by several processes and threads at once."""

import secrets
import threading
from collections import Counter
from itertools import combinations

import pytest
import sqlalchemy as sa

from sfumato.study import Study, voting
from sfumato.study.export import vote_rows, write_pairs
from sfumato.study.models import Assignment, Rater, StudyRow, Vote
from sfumato.study.store import Store, add_slots
from tests.study.bed import POINTS, make_study
from tests.study.postgres import find_postgres

PAIRS = [{"kind": "pair"}]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/own.sqlite3"
    return request.getfixturevalue("postgres").new_database(secrets.token_hex(8))


@pytest.fixture
def opened(url, tmp_path):
    store = Store(make_study(tmp_path, questions=PAIRS, votes_per_item=2, check_every=6), url)
    yield store
    store.close()


def take_part(store, rater, votes=100):
    """A rater who chooses the first picture as long as there is something to choose."""
    study, done = store.study, 0
    store.write(lambda connection: voting.join(connection, rater))
    held = store.write(lambda connection: voting.give(connection, study, rater))
    while held and done < votes:
        now, key = held[0], secrets.token_hex(16)
        answer = study.items[now.item].order(now.turn)[0]
        held = store.write(lambda connection, now=now, key=key, answer=answer: voting.vote(
            connection, study, rater, now.assignment, key, answer, 2.0
        ))  # fmt: skip
        done += 1
    return done


def rows_of(store):
    with store.read() as connection:
        return vote_rows(connection, store.study)


def test_raters_at_once_in_several_processes_share_out_the_items(opened, url):
    """Two stores stand for two processes: nothing but the database is common to them."""
    other = Store(opened.study, url)
    done = Counter()

    def work(number):
        done[number] = take_part((opened, other)[number % 2], f"rater-{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = rows_of(opened)
    assert len(rows) == sum(done.values())
    real = [row for row in rows if row["passed"] is None]
    assert Counter(Counter(row["item"] for row in real).values()) == {2: 18}, "every item has just its votes"
    assert max(Counter((row["rater"], row["item"]) for row in rows).values()) == 1
    met = Counter(frozenset(row["points"]) for row in real)
    assert met == {frozenset(pair): 6 for pair in combinations(POINTS, 2)}, "every pair of points gets equal votes"
    places = Counter(row["order"][0] for row in real)
    assert places[0] == places[1], "sides are balanced"
    other.close()


def test_a_form_that_is_sent_twice_at_once_joins_once(opened):
    together, failed = threading.Barrier(4), []

    def work():
        for rater in "abcdef":
            together.wait()
            try:
                opened.write(lambda connection, rater=rater: voting.join(connection, rater))
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with opened.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(Rater)).scalar_one() == 6


def test_checks_come_once_in_every_run(opened):
    take_part(opened, "rater")
    rows = rows_of(opened)
    checks = [row["position"] for row in rows if row["passed"] is not None]
    assert len(rows) == 18 + 3 and [(position - 1) // 6 for position in checks] == [0, 1, 2]


def test_items_that_were_not_answered_go_to_others(opened):
    take_part(opened, "slow", votes=1)
    take_part(opened, "second")
    assert len(rows_of(opened)) < 36
    take_part(opened, "third")
    with opened.read() as connection:
        missing = connection.execute(sa.select(Assignment.item).where(~Assignment.voted, Assignment.slot.is_not(None)))
        missing = set(missing.scalars())
        held = voting.held(connection, "slow")
    assert {each.item for each in held} & missing
    late = sa.update(Assignment).where(~Assignment.voted).values(claimed_at=Assignment.claimed_at - 3600)
    opened.write(lambda connection: connection.execute(late))
    take_part(opened, "fourth")
    assert Counter(row["item"] for row in rows_of(opened) if row["passed"] is None) == {
        item.id: 2 for item in opened.study.items.values() if item.check is None
    }
    gone = next(each.assignment for each in held if each.item in missing)
    with pytest.raises(voting.StaleError):
        opened.write(lambda connection: voting.vote(connection, opened.study, "slow", gone, "k" * 32, 0, 1.0))
    assert len([row for row in rows_of(opened) if row["passed"] is None]) == 36


def test_forgetting_frees_the_places(opened):
    take_part(opened, "one")
    take_part(opened, "two")
    before = len(rows_of(opened))
    opened.write(lambda connection: voting.forget(connection, "one"))
    assert len({row["rater"] for row in rows_of(opened)}) == 1 < before
    with opened.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(Vote)).scalar_one() == len(rows_of(opened))
        assert not connection.execute(sa.select(Assignment).where(Assignment.rater == "one")).first()
    take_part(opened, "three")
    assert Counter(Counter(row["item"] for row in rows_of(opened) if row["passed"] is None).values()) == {2: 18}


def test_nothing_of_a_rater_stays_in_the_file(store):
    rater = secrets.token_hex(16)
    file = store.study.path / "votes.sqlite3"
    take_part(store, rater, votes=5)

    def is_there():
        with store.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return rater.encode() in file.read_bytes()

    assert is_there()
    store.write(lambda connection: voting.forget(connection, rater))
    assert not is_there()


def test_more_votes_are_more_places(opened):
    for rater in "abc":
        take_part(opened, rater)
    opened.write(lambda connection: add_slots(connection, opened.study, 1))
    take_part(opened, "d")
    assert set(Counter(row["item"] for row in rows_of(opened) if row["passed"] is None).values()) == {3}


def test_a_job_that_fails_leaves_nothing_and_harms_no_other(opened):
    def join_and_fail(connection):
        voting.join(connection, "nobody")
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        opened.write(join_and_fail)
    take_part(opened, "somebody", votes=2)
    with opened.read() as connection:
        assert not voting.state(connection, "nobody").joined and voting.state(connection, "somebody").joined


def test_a_write_waits_for_another_process_that_writes_but_not_for_ever(tmp_path, monkeypatch):
    store = Store(make_study(tmp_path, questions=PAIRS))
    with store.writer.connect() as other:
        other.begin()
        threading.Timer(0.2, other.rollback).start()
        store.write(lambda connection: voting.join(connection, "a"))
        monkeypatch.setattr("sfumato.study.store.PATIENCE", 0)
        other.begin()
        with pytest.raises(sa.exc.OperationalError, match="locked"):
            store.write(lambda connection: voting.join(connection, "b"))
    store.write(lambda connection: voting.join(connection, "c"))
    with store.read() as connection:
        joined = [voting.state(connection, rater).joined for rater in "abc"]
    store.close()
    assert joined == [True, False, True]


def test_jobs_that_wait_together_stand_or_fall_alone(tmp_path):
    store = Store(make_study(tmp_path, questions=PAIRS))
    with store.writer.connect() as other:
        other.begin()
        joining = [
            store._batches.submit(lambda connection, rater=rater: voting.join(connection, rater)) for rater in "ab"
        ]
        bad = store._batches.submit(lambda connection: 1 / 0)
        other.rollback()
    assert [future.result() for future in joining] == [None, None]
    with pytest.raises(ZeroDivisionError):
        bad.result()
    with store.read() as connection:
        assert all(voting.state(connection, rater).joined for rater in "ab")
    store.close()


def test_a_database_of_another_study_or_version_is_refused(opened, url, tmp_path):
    with pytest.raises(ValueError, match="another study"):
        Store(make_study(tmp_path / "other", questions=PAIRS), url)
    rules = (opened.study.path / "study.yaml").read_text(encoding="utf-8")
    (opened.study.path / "study.yaml").write_text(rules.replace("seconds: 1.0", "seconds: 0.5"), encoding="utf-8")
    with pytest.raises(ValueError, match="exclusion rules, which are fixed"):
        Store(Study.load(opened.study.path), url)
    opened.write(lambda connection: connection.execute(sa.update(StudyRow).values(schema_version=99)))
    with pytest.raises(ValueError, match="tables of version 99, and this sfumato reads version 1"):
        Store(opened.study, url)


def test_votes_are_flushed_to_the_disk(opened):
    with opened.engine.connect() as connection:
        if opened.engine.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        else:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"


def test_pairs_are_what_preference_train_reads(tmp_path):
    from sfumato.preferences import load_pairs

    questions = [{"kind": "pair"}, {"kind": "best_of", "options": 3}, {"kind": "rank"}, {"kind": "rating"}]
    store = Store(
        make_study(tmp_path, questions=questions, prompts=1, check_every=4, exclusion={"failed_checks": None})
    )
    take_part_of_all_kinds(store)
    rows = rows_of(store)
    count = write_pairs(tmp_path / "out" / "pairs.jsonl", store.study, rows)
    pairs = load_pairs(tmp_path / "out" / "pairs.jsonl")
    assert len(pairs) == count == 6 + 4 * 2 + 4 * 3
    names = {path.name for path in store.study.images.iterdir()}
    for pair in pairs:
        assert pair.image_0.rpartition("/")[2] in names and pair.image_1.rpartition("/")[2] in names
    assert {pair.label for pair in pairs} == {0.0, 0.5, 1.0}
    assert write_pairs(tmp_path / "none.jsonl", store.study, [{**row, "excluded": ["x"]} for row in rows]) == 0
    store.close()


def take_part_of_all_kinds(store):
    answers = {"pair": None, "best_of": 2, "rank": [2, 0, 1], "rating": 4}
    store.write(lambda connection: voting.join(connection, "r"))
    held = store.write(lambda connection: voting.give(connection, store.study, "r"))
    while held:
        now = held[0]
        answer = answers[store.study.question(store.study.items[now.item]).kind]
        held = store.write(
            lambda s, now=now, answer=answer: voting.vote(
                s, store.study, "r", now.assignment, secrets.token_hex(16), answer, 2.0
            )
        )
    labels = {(row["kind"], row["passed"] is None): row for row in rows_of(store)}
    assert len(labels) == 8, "attention checks of every kind were met"


def test_a_ranking_is_read_from_the_best_on(tmp_path):
    from sfumato.study.export import pair_rows

    row = {
        "kind": "rank",
        "passed": None,
        "excluded": [],
        "prompt": "p",
        "points": ["x", "y", "z"],
        "images": [["a"], ["b"], ["c"]],
        "answer": [2, 0, 1],
    }
    found = {(pair["image_0"], pair["image_1"]): pair["label"] for pair in pair_rows([row])}
    assert found == {("a", "b"): 1.0, ("a", "c"): 0.0, ("b", "c"): 0.0}


def test_without_postgresql_ci_fails_and_others_skip():
    with pytest.raises(pytest.fail.Exception, match="install-packages"):
        find_postgres({"CI": "true"}, "nothing/*")
    with pytest.raises(pytest.skip.Exception, match="install-packages"):
        find_postgres({}, "nothing/*")
