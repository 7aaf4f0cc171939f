"""The model, seen from the file: keys, shapes, and what has no effect."""

from msrcache.config.middleware import DownstreamOptions
from msrcache.config.model import Config
from msrcache.config.schema import Shape, Sort, key_paths, keys_of
from msrcache.config.storage import StorageSection


def shapes() -> dict[str, Shape]:
    """Every key path of the model."""
    return dict(key_paths(Config))


def test_key_paths_are_unique_and_spelled_as_in_the_file() -> None:
    """No underscore in any, because variables are split there."""
    paths = [path for path, _ in key_paths(Config)]
    assert len(paths) == len(set(paths))
    assert not any("_" in path for path in paths)


def test_shapes_tell_what_stands_behind_a_key() -> None:
    """Sections, lists of sections, lists, maps, single values."""
    found = shapes()
    assert found["http"].sort is Sort.SECTION
    assert found["cache.upstreams"].sort is Sort.LIST
    assert found["http.tls.clientcas"].item == Shape(Sort.SCALAR)
    assert found["http.headers"].sort is Sort.MAP
    assert found["proxy.password"].sort is Sort.SCALAR
    assert found["redis"].without_effect


def test_durations_are_marked() -> None:
    """Also optional and bounded ones."""
    found = shapes()
    durations = ("http.draintimeout", "proxy.ttl", "cache.upstream.connecttimeout", "cache.access.grace")
    assert all(found[path].duration for path in durations)
    assert not found["cache.spool.size"].duration
    assert not found["http.addr"].duration


def test_of_two_shapes_the_one_with_keys_is_told() -> None:
    """An upstream of `downstream` is text or a map."""
    item = keys_of(DownstreamOptions)["upstreams"].item
    assert item is not None
    assert item.sort is Sort.SECTION


def test_attributes_that_are_no_keys_are_left_out() -> None:
    """The driver's name is a key, `driver` is none."""
    assert not StorageSection.free_keys & set(keys_of(StorageSection))
