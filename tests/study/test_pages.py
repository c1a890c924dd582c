"""What raters see and send, without a browser."""

import re

import pytest
from fastapi.testclient import TestClient

from sfumato.study.export import vote_rows
from sfumato.study.server.app import create_app
from sfumato.study.server.limits import Buckets, Limits
from sfumato.study.store import Store
from tests.study.bed import POINTS, make_study
from tests.study.conftest import Person


def votes(store):
    with store.read() as connection:
        return vote_rows(connection, store.study)


def answer_all(person):
    """All pages of a rater from the first to the last."""
    page, pages = person.join(), []
    while 'name="page"' in page:
        pages.append(page)
        page = person.answer(page).text
    return [*pages, page]


def test_a_rater_answers_every_kind_of_question(person, store):
    pages = answer_all(person)
    rows = votes(store)
    assert len(rows) == len(pages) - 1 == 30 and "Thank you!" in pages[-1]
    assert {row["kind"] for row in rows} == {"pair", "best_of", "rank", "variety", "rating"}
    assert [row["position"] for row in rows] == list(range(1, 31))
    assert sum(row["passed"] is not None for row in rows) == 3
    assert all(row["seconds"] >= 0 for row in rows)


def test_no_page_tells_a_method(tmp_path):
    store = Store(make_study(tmp_path, prompts=1, items_per_rater=15, check_every=5))
    person = Person(create_app(store))
    for page in answer_all(person):
        assert not [point for point in POINTS if re.search(rf"\b{point}\b", page)]
        for name in re.findall(r"/images/([^\"\s]*)", page):
            assert re.fullmatch(r"[0-9a-f]{32}\.webp", name)
            assert person.http.get(f"/images/{name}").headers["last-modified"].endswith("1970 00:00:00 GMT")
        items = store.study.items.values()
        assert not [item.id for item in items if item.id in page]
    store.close()


def test_places_are_shown_in_turn_and_answers_follow_the_pictures(tmp_path):
    """Whoever always presses the first button prefers each option of an item as often as any other."""
    questions = [{"kind": "pair"}, {"kind": "best_of", "options": 3}]
    store = Store(make_study(tmp_path, questions=questions, prompts=1, check_every=None))
    app = create_app(store)
    for _ in range(3):
        answer_all(Person(app))
    chosen = {}
    for row in votes(store):
        assert row["place"] == 0 and row["order"][0] == row["answer"]
        chosen.setdefault((row["kind"], row["item"]), []).append(row["answer"])
    assert len(chosen) == 10
    for (kind, _), answers in chosen.items():
        assert sorted(answers) in ([[0, 1, 2]] if kind == "best_of" else [[0, 0, 1]])
    store.close()


def test_prompts_and_names_are_escaped(tmp_path):
    study = make_study(tmp_path, title="<b>Title</b>", consent="<i>{items}</i>\n\nSecond", contact='"x" <a@b.c>')
    store = Store(study)
    pages = answer_all(person := Person(create_app(store)))
    pages.append(Person(create_app(store)).http.get("/").text)
    assert "<p>&lt;i&gt;30&lt;/i&gt;</p>" in pages[-1] and "<p>Second</p>" in pages[-1]
    assert any("&lt;script&gt;alert(1)" in page for page in pages)
    for page in pages:
        assert "<b>" not in page and "<script>" not in page and "<a@b.c>" not in page
    assert person.http.get("/item").status_code == 200
    store.close()


def test_leave_and_come_back_by_the_personal_link(app, person, store):
    page = person.answer(person.join()).text
    link = re.search(r'readonly value="http://testserver([^"]*)"', page).group(1)
    elsewhere = Person(app)
    again = elsewhere.http.get(link).text
    assert "2 of 30" in page and "2 of 30" in again
    assert re.findall("/images/[0-9a-f]*", again) == re.findall("/images/[0-9a-f]*", page)
    elsewhere.answer(again)
    assert len({row["rater"] for row in votes(store)}) == 1 and len(votes(store)) == 2


def test_the_last_vote_can_be_taken_back(tmp_path):
    store = Store(make_study(tmp_path, questions=[{"kind": "pair"}]))
    person = Person(create_app(store))
    first = person.join()
    second = person.answer(first).text
    fields = person.fields(second)
    back = person.http.post("/undo", data={"form": fields["form"], "vote": fields["vote"]}).text
    assert "1 of 20" in back and votes(store) == []
    assert re.findall("/images/[0-9a-f]*", back)[0] in first
    again = person.http.post("/undo", data={"form": fields["form"], "vote": fields["vote"]})
    assert again.status_code == 200, "what is sent twice counts once"
    person.answer(back, "2")
    assert person.answer(first).status_code == 200
    assert [row["place"] for row in votes(store)] == [1], "the first answer was taken back for good"
    store.close()


def test_what_is_sent_twice_counts_once(person, store):
    page = person.join()
    assert person.answer(page).status_code == person.answer(page).status_code == 200
    assert len(votes(store)) == 1
    undone = person.fields(person.http.get("/item").text)
    person.http.post("/undo", data={"form": undone["form"], "vote": undone["vote"]})
    assert person.answer(page).status_code == 200 and votes(store) == [], "a vote that was taken back stays so"


def test_two_tabs_make_one_vote(person, store):
    person.join()
    one, other = person.http.get("/item").text, person.http.get("/item").text
    assert person.answer(one).status_code == 200
    assert person.answer(other).status_code == 409 and len(votes(store)) == 1


def test_a_rater_deletes_everything(person, store):
    page = person.answer(person.join()).text
    assert len(votes(store)) == 1
    form = person.fields(person.http.get("/forget").text)["form"]
    assert "is deleted" in person.http.post("/forget", data={"form": form}).text
    assert votes(store) == []
    assert "I agree" in person.http.get("/").text
    link = re.search(r'readonly value="http://testserver([^"]*)"', page).group(1)
    assert person.http.get(link).status_code == 404


@pytest.mark.parametrize("answer", ["0", "3", "-1", "tie!", "1 ", "", "٣"])
def test_answers_that_do_not_fit_are_refused(tmp_path, answer):
    store = Store(make_study(tmp_path, questions=[{"kind": "pair"}]))
    person = Person(create_app(store))
    assert person.http.post("/vote", data={**person.fields(person.join()), "answer": answer}).status_code == 422
    assert votes(store) == []
    store.close()


def test_ranks_must_differ(tmp_path):
    store = Store(make_study(tmp_path, questions=[{"kind": "rank"}]))
    person = Person(create_app(store))
    fields = person.fields(person.join())
    for ranks in (["1", "1", "2"], ["1", "2"], ["0", "1", "2"], []):
        assert person.http.post("/vote", data={**fields, "rank": ranks}).status_code == 422
    assert person.http.post("/vote", data={**fields, "rank": ["3", "1", "2"]}).status_code == 200
    row = votes(store)[0]
    assert row["answer"] == [row["order"][place] for place in (1, 2, 0)]
    store.close()


def test_no_tie_where_there_is_none(tmp_path):
    store = Store(make_study(tmp_path, questions=[{"kind": "pair", "ties": False}]))
    person = Person(create_app(store))
    page = person.join()
    assert 'value="tie"' not in page and person.answer(page, "tie").status_code == 422
    store.close()


def test_the_pages_speak_chinese(tmp_path):
    store = Store(make_study(tmp_path, language="zh"))
    page = Person(create_app(store)).join()
    assert '<html lang="zh-Hans">' in page and "第 1 题" in page and "Undo" not in page
    store.close()


def test_nobody_acts_for_another(app, person, store):
    mine, theirs = person.join(), (other := Person(app)).join()
    fields = person.fields(mine)
    assert other.http.post("/vote", data={**fields, "answer": "1"}).status_code == 403, "their form, my page"
    mixed = {"form": other.fields(theirs)["form"], "page": fields["page"], "answer": "1"}
    assert other.http.post("/vote", data=mixed).status_code == 403, "my form, their page"
    assert other.http.post("/vote", data={"page": fields["page"], "answer": "1"}).status_code == 422
    voted = person.fields(person.answer(mine).text)
    stolen = {"form": other.fields(theirs)["form"], "vote": voted["vote"]}
    assert other.http.post("/undo", data=stolen).status_code == 409
    assert len(votes(store)) == 1
    assert other.http.get("/return/" + "x" * 60).status_code == 404


def test_a_tampered_cookie_or_page_is_worth_nothing(person, store):
    fields = person.fields(person.join())
    for place in (5, len(fields["page"]) - 5):
        changed = fields["page"][:place] + ("A" if fields["page"][place] != "A" else "B") + fields["page"][place + 1 :]
        assert person.http.post("/vote", data={**fields, "page": changed, "answer": "1"}).status_code == 403
    person.http.cookies.clear()
    person.http.cookies.set("sfumato_study", "nonsense")
    assert person.http.post("/vote", data={**fields, "answer": "1"}).status_code == 403
    assert votes(store) == []


def test_every_answer_tells_the_browser_how_little_it_may_do(person):
    person.join()
    for path in ("/", "/item", "/admin", "/static/study.js", "/nothing", "/return/x"):
        headers = person.http.get(path, follow_redirects=False).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    for page in (person.http.get("/item").text, person.http.get("/forget").text):
        assert not re.search(r"<script(?! src)|<style|\son\w+=|\sstyle=", page)


def test_cookies_are_for_the_server_alone(store):
    client = TestClient(create_app(store), base_url="https://study.test")
    cookie = client.get("/").headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=lax", "Secure"))


@pytest.mark.parametrize(
    "name", ["../study.yaml", "..%2fitems.jsonl", "%2e%2e/study.json", "/etc/passwd", "x" * 300, "%00"]
)
def test_no_other_file_is_served(person, name):
    for folder in ("images", "static"):
        reply = person.http.get(f"/{folder}/{name}")
        assert reply.status_code in (404, 422) and "points" not in reply.text


def test_large_and_frequent_requests_are_refused(store):
    limits = Limits(answers=Buckets(0.01, 2), joining=Buckets(0.01, 3))
    person = Person(create_app(store, limits))
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert person.http.post("/join", content=b"form=" + b"x" * 20_000, headers=headers).status_code == 413
    pieces = (b"x" * 1000 for _ in range(20))
    assert person.http.post("/vote", content=pieces, headers=headers).status_code == 413
    page = person.join()
    for _ in range(2):
        page = person.answer(page).text
    reply = person.answer(page)
    assert reply.status_code == 429 and int(reply.headers["retry-after"]) > 10
    assert len(votes(store)) == 2


def test_behind_a_proxy_all_links_stay_under_its_path(store):
    app = create_app(store)
    root = "/studies/one"
    client = Person(app, root_path=root)
    reply = client.http.get(f"{root}/")
    assert 'action="/studies/one/join"' in reply.text and 'href="/studies/one/static/study.css"' in reply.text
    assert "Path=/studies/one" in reply.headers["set-cookie"]
    form = {"form": client.fields(reply.text)["form"]}
    reply = client.http.post(f"{root}/join", data=form, follow_redirects=False)
    assert reply.headers["location"] == "/studies/one/item"
    item = client.http.get(f"{root}/item").text
    assert 'action="/studies/one/vote"' in item and "http://testserver/studies/one/return/" in item
    assert not re.findall(r'(?:action|href|src)="/(?!studies/one/)', item)
