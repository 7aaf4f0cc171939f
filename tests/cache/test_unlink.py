"""Links of what has gone go too, and no others."""

from msrcache.cache.layout import layer_link, revision_link, tag_index_link, tag_link
from msrcache.cache.ledger import silent
from msrcache.cache.unlink import unlink
from msrcache.oci.digest import Digest
from msrcache.oci.names import Repository, Tag
from tests.cache.aging import aging
from tests.cache.kitchen import A, B

ONE, OTHER = Digest.of(b"1"), Digest.of(b"2")


async def test_every_repository_forgets_it() -> None:
    """Layers, manifests, index entries; a tag's link only where it still names it."""
    async with aging() as stage:
        odd = Repository.parse("team/index/odd")
        going = [
            layer_link(A, ONE),
            layer_link(B, ONE),
            revision_link(odd, ONE),
            tag_index_link(A, Tag("latest"), ONE),
            tag_link(A, Tag("latest")),
            tag_index_link(A, Tag("moved"), ONE),
            tag_index_link(odd, Tag("v1"), ONE),
        ]
        staying = [layer_link(A, OTHER), tag_index_link(A, Tag("moved"), OTHER), tag_link(A, Tag("moved"))]
        for key in going:
            stage.memory.contents.store(key, str(ONE).encode())
        for key in staying:
            stage.memory.contents.store(key, str(OTHER).encode())
        assert await unlink(stage.store, {ONE}, progress=silent) == len(going)
        assert stage.keys() == sorted(staying)


async def test_without_anything_gone_nothing_is_listed() -> None:
    """A look that deleted nothing costs nothing here."""
    async with aging() as stage:
        assert await unlink(stage.store, set(), progress=silent) == 0
        assert stage.sickness.calls == []


async def test_many_links_go_some_hundred_at_a_time() -> None:
    """All of them, however many there are."""
    async with aging() as stage:
        for number in range(1100):
            stage.memory.contents.store(layer_link(Repository.parse(f"r/{number}"), ONE), b"")
        assert await unlink(stage.store, {ONE}, progress=silent) == 1100
        assert stage.keys() == []
