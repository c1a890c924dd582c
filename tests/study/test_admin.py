"""The admin page: who gets in, and what they see and do."""

import json
import re

import pytest
import sqlalchemy as sa

from sfumato.study.exclusion import reasons_by_rater
from sfumato.study.models import StudyRow
from sfumato.study.server.app import create_app
from sfumato.study.store import Store
from sfumato.study.summary import agreement
from tests.study.bed import make_study
from tests.study.conftest import Person


@pytest.fixture
def admin(app, token):
    somebody = Person(app)
    assert somebody.http.post("/admin/login", data={"token": token}).status_code == 200
    return somebody


def send(admin, path, **data):
    page = admin.http.get("/admin").text
    return admin.http.post(f"/admin/{path}", data={"form": admin.fields(page)["form"], **data})


def test_only_the_token_lets_in(app, token):
    stranger = Person(app)
    assert "Token" in stranger.http.get("/admin").text
    assert stranger.http.get("/admin/votes.jsonl").status_code == 403
    for other in ("", "x", token[:-1], token + "x"):
        assert stranger.http.post("/admin/login", data={"token": other}).status_code in (403, 422)
    for path, data in (("extend", {"votes": "1"}), ("switch", {"open": "false"}), ("logout", {})):
        assert stranger.http.post(f"/admin/{path}", data={"form": "x", **data}).status_code == 403
    assert "Token" in stranger.http.get("/admin").text


def test_before_there_is_a_token_nothing_lets_in(app):
    for token in ("", "x"):
        assert Person(app).http.post("/admin/login", data={"token": token}).status_code in (403, 422)


def test_the_token_is_nowhere_kept_and_a_new_one_ends_the_old_one(admin, app, store, token):
    with store.read() as connection:
        row = connection.execute(sa.select(StudyRow.admin_hash, StudyRow.secret)).one()
        assert token not in {row.admin_hash, row.secret}
    files = [path for path in store.study.path.iterdir() if path.is_file()]
    assert not any(token.encode() in path.read_bytes() for path in files)
    renewed = store.renew_admin_token()
    assert store.first_admin_token() is None
    assert "Token" in admin.http.get("/admin").text
    assert Person(app).http.post("/admin/login", data={"token": token}).status_code == 403
    assert "Suspicious" in Person(app).http.post("/admin/login", data={"token": renewed}).text


def test_guessing_is_slowed_down(app):
    stranger = Person(app)
    replies = [stranger.http.post("/admin/login", data={"token": str(i)}).status_code for i in range(12)]
    assert replies[:10] == [403] * 10 and replies[10:] == [429] * 2


def test_forms_from_elsewhere_do_nothing(admin):
    assert admin.http.post("/admin/switch", data={"form": "x" * 64, "open": "false"}).status_code == 403
    assert "<dd>open</dd>" in admin.http.get("/admin").text
    cookie = next(c for c in admin.http.cookies.jar if c.name == "sfumato_admin")
    assert cookie.path == "/admin" and "SameSite" in cookie._rest and cookie._rest["SameSite"] == "strict"


def test_counts_agreement_and_suspicion(tmp_path):
    store = Store(make_study(tmp_path, questions=[{"kind": "pair"}], prompts=2, votes_per_item=2, check_every=2))
    app = create_app(store)
    for answer in ("1", "tie"):
        person = Person(app)
        page = person.join()
        while 'name="page"' in page:
            page = person.answer(page, answer).text
    admin = Person(app)
    page = admin.http.post("/admin/login", data={"token": store.first_admin_token()}).text
    assert "<dd>24 of 24</dd>" in page and "0 %" in page
    assert len(re.findall(r"failed \d of 6 attention checks", page)) >= 1
    rows = [json.loads(line) for line in admin.http.get("/admin/votes.jsonl").text.splitlines()]
    assert len(rows) == 36 and any(row["excluded"] for row in rows)
    store.close()


def test_extend_stop_and_go_on(admin, app, store):
    person = Person(app)
    page = person.join()
    assert "<dd>0 of 216</dd>" in admin.http.get("/admin").text
    assert "<dd>0 of 360</dd>" in send(admin, "extend", votes="2").text
    assert send(admin, "extend", votes="0").status_code == send(admin, "extend", votes="101").status_code == 422
    assert "<dd>stopped</dd>" in send(admin, "switch", open="false").text
    assert person.answer(page).status_code == 409
    assert "The study is closed" in person.http.get("/item").text
    assert "The study is closed" in (late := Person(app)).http.get("/").text
    assert late.http.get("/item", follow_redirects=False).status_code == 303
    send(admin, "switch", open="true")
    assert person.answer(page).status_code == 200


def test_sign_out(admin):
    assert "Token" in send(admin, "logout").text


def vote(rater, seconds=2.0, place=0, passed=None):
    return {"rater": rater, "seconds": seconds, "place": place, "passed": passed}


def test_exclusion_rules_are_those_of_the_study(study):
    rules = study.config.exclusion
    good = [vote("good", place=i % 2, passed=True if i % 10 == 0 else None) for i in range(40)]
    same = [vote("same", place=1) for _ in range(20)]
    fast = [vote("fast", seconds=0.4, place=i % 2) for i in range(5)]
    careless = [vote("careless", place=i % 2, passed=i % 2 == 0) for i in range(6)]
    reasons = reasons_by_rater([*good, *same, *fast, *careless], rules)
    assert reasons == {
        "same": ["chose the same place in 20 of 20 votes"],
        "fast": ["took 0.4 s for a vote, at the median"],
        "careless": ["failed 3 of 6 attention checks"],
    }
    none = rules.model_copy(update={"failed_checks": None, "seconds": None, "same_place": None})
    assert reasons_by_rater([*same, *fast, *careless], none) == {}


def test_agreement_counts_pairs_of_votes_on_an_item():
    assert agreement([{"item": "a", "answer": 0}, {"item": "b", "answer": 0}]) is None
    answers = [("a", 0), ("a", 0), ("a", 1), ("b", None), ("b", None)]
    assert agreement([{"item": item, "answer": answer} for item, answer in answers]) == 0.5
