"""The voting protocol in any order, over HTTP: a model of what must be in the database, and never an error of ours."""

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sfumato.study.export import vote_rows
from sfumato.study.models import Assignment, StudyRow
from sfumato.study.server.app import create_app
from sfumato.study.server.limits import Buckets, Limits
from sfumato.study.store import Store
from tests.study.bed import make_study
from tests.study.conftest import Person

QUESTIONS = [{"kind": "pair"}, {"kind": "rank", "options": 2}]
FREE = Buckets(1e9, 1e9)
SOMEBODY = st.integers(0, 2)


class Voting(RuleBasedStateMachine):
    """Three people with a browser each, who answer, repeat themselves, take back, open tabs, leave, delete."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        settings_ = {"questions": QUESTIONS, "prompts": 1, "votes_per_item": 2, "check_every": 4}
        self.store = Store(make_study(self.folder, **settings_))
        app = create_app(self.store, Limits(FREE, FREE, FREE))
        self.people = [Person(app) for _ in range(3)]
        self.pages: list[list[str]] = [[person.join()] for person in self.people]
        self.votes = 0

    def send(self, who: int, path: str, data: dict) -> int:
        """What came of it; a page that was shown is kept."""
        reply = self.people[who].http.post(path, data=data)
        assert reply.status_code < 500
        if 'name="page"' in reply.text:
            self.pages[who].append(reply.text)
        return reply.status_code

    def live(self) -> int:
        with self.store.read() as connection:
            return len(vote_rows(connection, self.store.study))

    @rule(who=SOMEBODY)
    def begin_or_look(self, who: int) -> None:
        person = self.people[who]
        page = person.http.get("/").text
        if "I agree" in page:
            self.send(who, "/join", {"form": person.fields(page)["form"]})
        elif 'name="page"' in page:
            self.pages[who].append(page)

    @rule(who=SOMEBODY, which=st.sampled_from([-1, -1, -2, -3]))
    def answer(self, who: int, which: int) -> None:
        """A page that is open somewhere, the newest or one before it."""
        pages = self.pages[who]
        if len(pages) < -which:
            return
        page, before = pages[which], self.live()
        reply = self.people[who].answer(page)
        assert reply.status_code in (200, 403, 409)
        after = self.live()
        assert after - before in ((0, 1) if reply.status_code == 200 else (0,))
        if which == -1 and 'name="page"' in reply.text:
            pages.append(reply.text)
        assert self.people[who].answer(page).status_code == reply.status_code
        assert self.live() == after
        self.votes += after - before

    @rule(who=SOMEBODY, times=st.integers(1, 2))
    def undo(self, who: int, times: int) -> None:
        page = self.people[who].http.get("/item").text
        fields = self.people[who].fields(page)
        if "vote" in fields:
            before = self.live()
            for _ in range(times):
                assert self.send(who, "/undo", {"form": fields["form"], "vote": fields["vote"]}) == 200
            self.votes -= 1
            assert self.live() == before - 1

    @rule(who=SOMEBODY, other=SOMEBODY)
    def use_a_page_of_another(self, who: int, other: int) -> None:
        if who != other and self.pages[other]:
            assert self.people[who].answer(self.pages[other][-1]).status_code == 403

    @rule(who=SOMEBODY, sure=st.sampled_from([False, False, True]))
    def delete(self, who: int, sure: bool) -> None:
        page = self.people[who].http.get("/forget").text
        if sure and "Delete everything" in page:
            form = self.people[who].fields(page)["form"]
            assert self.send(who, "/forget", {"form": form}) == 200
            self.votes = self.live()
            for page in self.pages[who][-1:]:
                assert self.people[who].answer(page).status_code == 403
            self.pages[who].clear()

    @rule(who=SOMEBODY)
    def nothing_counts_while_it_is_stopped(self, who: int) -> None:
        before, last = self.live(), self.people[who].http.get("/item").text
        self.switch(False)
        for page in self.pages[who]:
            assert self.people[who].answer(page).status_code in (200, 403, 409)
        fields = self.people[who].fields(last)
        if "vote" in fields:
            assert self.send(who, "/undo", {"form": fields["form"], "vote": fields["vote"]}) == 409
        assert self.live() == before
        self.switch(True)

    def switch(self, is_open: bool) -> None:
        self.store.write(lambda connection: connection.execute(sa.update(StudyRow).values(open=is_open)))

    @rule()
    def time_passes(self) -> None:
        late = sa.update(Assignment).values(claimed_at=Assignment.claimed_at - 3600)
        self.store.write(lambda connection: connection.execute(late))

    @invariant()
    def nothing_is_lost_or_counted_twice(self) -> None:
        if not hasattr(self, "store"):
            return
        with self.store.read() as connection:
            rows = vote_rows(connection, self.store.study)
            voted = connection.execute(sa.select(sa.func.count()).where(Assignment.voted)).scalar_one()
        assert len(rows) == self.votes == voted
        assert max(Counter((row["rater"], row["item"]) for row in rows).values(), default=1) == 1
        assert max(Counter(row["item"] for row in rows if row["passed"] is None).values(), default=0) <= 2
        assert max(Counter((row["rater"], row["position"]) for row in rows).values(), default=1) == 1

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)


TestVoting = Voting.TestCase
TestVoting.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
