"""`kill -9` of the server, and of PostgreSQL, while a hundred raters vote: no acknowledged vote is lost or doubled.

The raters keep their own log of what was acknowledged. The same harness loses votes where durability is switched off,
so it would see a loss.
"""

import random
import secrets
import socket
import time
from collections import Counter

import pytest
import sqlalchemy as sa

from sfumato.study import Study
from sfumato.study.batches import Batches
from sfumato.study.models import StudyRow
from sfumato.study.models import Vote as Row
from sfumato.study.server.security import Signer
from sfumato.study.store import Store
from tests import forked
from tests.study.bed import make_pictures, make_study
from tests.study.postgres import Postgres
from tests.study.raters import read_log, run_raters

pytestmark = pytest.mark.torture
RATERS, KILLS, PAUSE = 100, 50, 0.5


class Early(Batches):
    """Acknowledges what is still in memory, and commits it a while later."""

    def _run(self):
        while batch := self._next():
            with self._engine.begin() as connection:
                for job, future in batch:
                    try:
                        with connection.begin_nested():
                            future.set_result(job(connection))
                    except Exception as error:
                        future.set_exception(error)
                time.sleep(0.2)


def serve(folder, url, port, durable):
    """A server, in a process of its own."""
    import uvicorn

    from sfumato.study.server.app import create_app

    store = Store(Study.load(folder), url)
    if not durable and store.engine.dialect.name == "sqlite":
        store._batches = Early(store.writer)
    elif not durable:
        sa.event.listen(store.engine, "begin", lambda own: own.exec_driver_sql("SET LOCAL synchronous_commit = off"))
    uvicorn.run(create_app(store), port=port, access_log=False, log_level="critical")


class Campaign:
    """Raters who go on voting while something is killed again and again."""

    def __init__(self, folder, url, durable):
        settings = {"questions": [{"kind": "pair", "repeats": 20}], "votes_per_item": RATERS, "items_per_rater": None}
        points = make_pictures(folder / "pictures", images=20)
        self.study = make_study(folder, points=points, **settings)
        self.url, self.durable, self.log, self.stop = url, durable, folder / "acknowledged.jsonl", folder / "stop"
        self._log, self._processes = folder / "output", []
        Store(self.study, url).close()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start_server(self):
        server = self._start(serve, str(self.study.path), self.url, self.port, self.durable)
        while server.is_alive():
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return server
            except OSError:
                time.sleep(0.01)
        raise AssertionError("the server did not start")

    def start_raters(self):
        return self._start(run_raters, self.port, RATERS, str(self.log), PAUSE, str(self.stop))

    def votes(self):
        return len(self.log.read_bytes().splitlines()) if self.log.exists() else 0

    def wait_for_votes(self, more):
        """Until some more votes were acknowledged, and then for an instant."""
        wanted, patience = self.votes() + more, time.monotonic() + 120
        while self.votes() < wanted:
            assert time.monotonic() < patience, "nobody votes"
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.3))

    def end(self, raters, server):
        self.stop.touch()
        raters.join(120)
        assert raters.exitcode == 0
        server.terminate()
        server.join(30)

    def check(self):
        """How many votes were acknowledged, how many of them are lost, and how many are not as they were given."""
        store = Store(self.study, self.url)
        with store.read() as connection:
            rows = connection.execute(
                sa.select(Row.key, Row.rater, Row.assignment, Row.answer).where(Row.undone_at.is_(None))
            )
            found = {key: (rater, assignment, answer) for key, rater, assignment, answer in rows}
            signer = Signer(connection.execute(sa.select(StudyRow.secret)).scalar_one())
        store.close()
        lost = wrong = 0
        acknowledged = read_log(self.log)
        for vote in acknowledged:
            rater = signer.rater(vote.cookie)
            page = signer.read_page(rater, vote.page)
            order = self.study.items[page.item].order(page.turn)
            answer = None if vote.answer == "tie" else order[int(vote.answer) - 1]
            if page.key not in found:
                lost += 1
            elif found[page.key] != (rater, page.assignment, answer):
                wrong += 1
        assert max(Counter(assignment for _, assignment, _ in found.values()).values()) == 1
        assert len({vote.page for vote in acknowledged}) == len(acknowledged)
        return len(acknowledged), lost, wrong

    def remove(self):
        """Leave no process behind, however it ended."""
        for process in self._processes:
            process.kill()
            process.join()

    def _start(self, function, *arguments):
        process = forked.start(function, *arguments, log=self._log)
        self._processes.append(process)
        return process


def kill_servers(campaign, kills):
    server, raters = campaign.start_server(), campaign.start_raters()
    for _ in range(kills):
        campaign.wait_for_votes(random.randrange(1, 100))
        server.kill()
        server.join()
        server = campaign.start_server()
    campaign.end(raters, server)
    return campaign.check()


def kill_database(campaign, postgres, kills):
    server, raters = campaign.start_server(), campaign.start_raters()
    for _ in range(kills):
        campaign.wait_for_votes(random.randrange(1, 100))
        postgres.kill()
        postgres.start()
    campaign.wait_for_votes(RATERS)
    campaign.end(raters, server)
    return campaign.check()


@pytest.fixture
def campaign(tmp_path):
    begun = []

    def begin(url=None, durable=True):
        begun.append(Campaign(tmp_path, url, durable))
        return begun[0]

    yield begin
    for each in begun:
        each.remove()


@pytest.fixture(scope="module")
def postgres():
    server = Postgres()
    yield server
    server.remove()


def report(what, kills, found):
    print(f"{what}: {kills} kills, {found[0]} votes acknowledged, {found[1]} lost, {found[2]} changed")


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_no_acknowledged_vote_is_lost_when_the_server_is_killed(database, campaign, request):
    url = request.getfixturevalue("postgres").new_database(secrets.token_hex(8)) if database == "postgresql" else None
    found = kill_servers(campaign(url), KILLS)
    report(f"server on {database}", KILLS, found)
    assert found[0] > 10 * KILLS and found[1:] == (0, 0)


def test_no_acknowledged_vote_is_lost_when_postgresql_is_killed(postgres, campaign):
    url = postgres.new_database(secrets.token_hex(8))
    found = kill_database(campaign(url), postgres, KILLS)
    report("PostgreSQL", KILLS, found)
    assert found[0] > 10 * KILLS and found[1:] == (0, 0)


def test_the_harness_sees_losses_where_votes_are_acknowledged_too_early(campaign):
    found = kill_servers(campaign(durable=False), 10)
    report("server that acknowledges before it commits", 10, found)
    assert found[1] > 0


def test_the_harness_sees_losses_of_a_database_that_does_not_flush(postgres, campaign):
    url = postgres.new_database(secrets.token_hex(8))
    found = kill_database(campaign(url, durable=False), postgres, 8)
    report("PostgreSQL with synchronous_commit = off", 8, found)
    assert found[1] > 0
