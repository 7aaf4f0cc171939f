"""What was just published: a miss of it is a violation if it was looked for after that, and only then."""

import pytest

from msrcache.cache.news import AT_ONCE, JUST, MOST, News
from msrcache.oci.digest import Digest
from tests.stage.clock import FakeClock

ONE, OTHER = Digest.of(b"one"), Digest.of(b"other")


class Stage:
    """News with a clock of its own and the violations that it told."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.violations: list[Digest] = []
        self.news = News(self.violations.append, self.clock)


@pytest.fixture
def stage() -> Stage:
    """Nothing was published yet."""
    return Stage()


def test_a_miss_after_it_was_published_is_a_violation(stage: Stage) -> None:
    """Told first, missed then."""
    stage.news.heard([(ONE, 0.5)])
    stage.news.missed(ONE, stage.news.looking())
    stage.news.missed(OTHER, stage.news.looking())
    assert stage.violations == [ONE]


def test_a_miss_before_it_was_published_is_none(stage: Stage) -> None:
    """It was looked for while the writer still wrote; that the answer came later changes nothing."""
    began = stage.news.looking()
    stage.clock.advance(2.0)
    stage.news.heard([(ONE, 1.0)])
    stage.news.missed(ONE, began)
    assert stage.violations == []


def test_a_miss_is_found_out_when_the_news_comes_late(stage: Stage) -> None:
    """Missed one second ago, published two seconds ago: a violation, and one that began before is none."""
    stage.news.missed(OTHER, stage.news.looking())
    stage.clock.advance(1.0)
    stage.news.missed(ONE, stage.news.looking())
    stage.clock.advance(1.0)
    stage.news.heard([(ONE, 1.5), (OTHER, 1.5)])
    assert stage.violations == [ONE]


def test_what_was_published_long_ago_may_be_deleted_again(stage: Stage) -> None:
    """A miss of it means nothing."""
    stage.news.heard([(ONE, JUST + 1), (OTHER, 0.0)])
    stage.clock.advance(JUST + 1)
    for digest in (ONE, OTHER):
        stage.news.missed(digest, stage.news.looking())
    assert stage.violations == []


def test_where_content_expires_sooner_the_word_counts_for_less_long(stage: Stage) -> None:
    """What may have expired since it was published is no violation."""
    news = News(stage.violations.append, stage.clock, belief=2.0)
    news.heard([(ONE, 0.0), (OTHER, 2.5)])
    news.missed(OTHER, news.looking())
    stage.clock.advance(2.5)
    news.missed(ONE, news.looking())
    assert stage.violations == []


async def test_what_is_published_here_is_told_once_with_its_age(stage: Stage) -> None:
    """Oldest first, so many at a time; then there is nothing to tell."""
    many = [Digest.of(b"%d" % number) for number in range(AT_ONCE + 1)]
    stage.news.note(many[0])
    stage.clock.advance(3.0)
    for digest in many[1:]:
        stage.news.note(digest)
    assert stage.news.arrived.is_set()
    taken = stage.news.take()
    assert taken[:2] == [(many[0], 3.0), (many[1], 0.0)]
    assert (len(taken), stage.news.arrived.is_set()) == (AT_ONCE, True)
    assert stage.news.take() == [(many[-1], 0.0)]
    assert not stage.news.arrived.is_set()


def test_memory_is_bounded(stage: Stage) -> None:
    """The oldest are forgotten, whatever a flood brings."""
    digests = [Digest.of(b"%d" % number) for number in range(MOST + 1)]
    for digest in digests:
        stage.news.note(digest)
        stage.news.missed(digest, stage.news.looking())
    stage.news.heard((digest, 0.0) for digest in digests)
    stage.clock.advance(1.0)
    stage.news.missed(digests[0], stage.news.looking())
    stage.news.missed(digests[1], stage.news.looking())
    assert stage.violations == [digests[1]]
