"""Reading mountinfo: which mount a folder stands in, and what its options mean. Lines are those of real kernels."""

import os
from pathlib import Path

import pytest

from msrcache.storage import mounts as module
from msrcache.storage.mounts import Mount, covering, mount_named, mount_of, parse, remarks

ROOT = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n"
NFS = (
    "45 27 0:41 / {point} {flags} shared:7 - nfs4 filer.example.com:/export/cache rw,vers=4.2,rsize=131072,"
    "wsize=131072,namlen=255,{options}proto=tcp,timeo=600,retrans=2,sec=sys,clientaddr=10.99.0.3,"
    "local_lock=none,addr=10.99.0.2\n"
)


def nfs(options: str = "hard,", *, point: str = "/mnt/cache", flags: str = "rw,relatime") -> Mount:
    """An NFS mount with these options."""
    return parse(NFS.format(point=point, flags=flags, options=options))[0]


def test_a_line_is_read_whole() -> None:
    """Mount point, device, type, source, and the options of mount and file system together."""
    mount = nfs()
    assert (mount.point, mount.device, mount.kind) == ("/mnt/cache", "0:41", "nfs4")
    assert mount.source == "filer.example.com:/export/cache"
    assert mount.options["vers"] == "4.2"
    assert mount.options["relatime"] == mount.options["hard"] == ""
    assert mount.nfs


def test_optional_fields_may_be_none_or_many() -> None:
    """The separator counts, not the position."""
    few = parse("28 27 0:25 / /run rw - tmpfs tmpfs rw")
    many = parse("28 27 0:25 / /run rw shared:1 master:2 propagate_from:3 - tmpfs tmpfs rw")
    assert [mount.kind for mount in few + many] == ["tmpfs", "tmpfs"]
    assert few[0].options == many[0].options == {"rw": ""}


def test_blanks_in_names_are_escaped() -> None:
    """As the kernel writes blanks and backslashes."""
    mount = parse(r"28 27 0:25 / /mnt/a\040b\134c rw - nfs4 host:/x\040y rw")[0]
    assert (mount.point, mount.source) == (r"/mnt/a b\c", "host:/x y")


@pytest.mark.parametrize("text", ["", "\n\n", "nonsense", "1 2 3 - tmpfs", "1 2 0:1 / / rw no separator"])
def test_what_is_no_mount_is_left_out(text: str) -> None:
    """A line that cannot be read hides no other."""
    assert [mount.point for mount in parse(f"{text}\n{ROOT}")] == ["/"]


def test_the_longest_mount_point_covers() -> None:
    """By segments: /mnt/cache2 is not below /mnt/cache."""
    mounts = parse(ROOT + NFS.format(point="/mnt/cache", flags="rw", options=""))
    for path, point in {
        "/": "/",
        "/mnt": "/",
        "/mnt/cache": "/mnt/cache",
        "/mnt/cache/a/b": "/mnt/cache",
        "/mnt/cache2": "/",
    }.items():
        found = covering(mounts, path)
        assert found is not None
        assert found.point == point
    assert covering(parse(ROOT)[:0], "/") is None


def test_the_last_of_several_on_one_point_covers() -> None:
    """autofs first, then what it mounted over itself."""
    text = "44 27 0:40 / /mnt/cache rw - autofs systemd-1 rw\n" + NFS.format(
        point="/mnt/cache", flags="rw", options=""
    )
    found = covering(parse(text), "/mnt/cache/a")
    assert found is not None
    assert found.nfs


def test_a_hidden_mount_is_told_by_its_device() -> None:
    """Something was mounted over the folder above: the device of the path says which one it is."""
    over = "60 27 8:1 / /mnt rw - ext4 /dev/sda1 rw\n"
    mounts = parse(ROOT + NFS.format(point="/mnt/cache", flags="rw", options="") + over)
    for device, kind in {"8:1": "ext4", "0:41": "nfs4", "99:9": "nfs4"}.items():
        found = covering(mounts, "/mnt/cache", device=device)
        assert found is not None
        assert found.kind == kind


@pytest.mark.parametrize(
    ("options", "absence", "presence"),
    [
        ("hard,", True, True),
        ("hard,lookupcache=pos,", False, True),
        ("hard,lookupcache=none,", False, False),
        ("hard,lookupcache=all,", True, True),
    ],
)
def test_what_a_mount_remembers(options: str, absence: bool, presence: bool) -> None:  # noqa: FBT001
    """By lookupcache; the kernel leaves out the default and shortens `positive`."""
    mount = nfs(options)
    assert (mount.remembers_absence, mount.remembers_presence) == (absence, presence)


def test_other_options_mean_what_nfs_says() -> None:
    """soft and softerr, nocto, local locks, and read-only by the mount or by the file system."""
    assert [nfs(f"{word},").soft for word in ("hard", "soft", "softerr")] == [False, True, True]
    assert [nfs(f"{word},").opens_anew for word in ("hard", "nocto")] == [True, False]
    locks = [
        parse(f"1 2 0:1 / /m rw - nfs h:/x rw,local_lock={w}")[0] for w in ("none", "posix", "flock", "all")
    ]
    assert [mount.shares_locks for mount in locks] == [True, True, False, False]
    assert not nfs().read_only
    assert nfs(flags="ro,relatime").read_only
    assert parse("1 2 0:1 / /m rw - nfs h:/x ro,vers=3")[0].read_only


def test_a_local_file_system_has_none_of_it() -> None:
    """It remembers nothing wrong, and there is nothing to say of it."""
    mount = parse(ROOT)[0]
    assert not any((mount.nfs, mount.remembers_absence, mount.remembers_presence, mount.soft))
    assert remarks(mount) == []


def test_remarks_say_what_to_do() -> None:
    """One sentence for each option that costs something, the worst first; none where all is as advised."""
    assert remarks(nfs("hard,lookupcache=pos,")) == []
    assert remarks(nfs("softerr,lookupcache=pos,")) == []
    assert [("lookupcache=positive" in said) for said in remarks(nfs())] == [True]
    text = "1 2 0:1 / /m ro - nfs h:/x rw,vers=3,nocto,soft,timeo=7,local_lock=all"
    words = ["read-only", "locks are local", "nocto", "lookupcache=positive", "timeo=100"]
    said = remarks(parse(text)[0])
    assert [word in sentence for word, sentence in zip(words, said, strict=True)] == [True] * 5


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    """The folder's own mount is found, also for a folder that is not there yet and through a symbolic link."""
    here = mount_of(tmp_path)
    assert here is not None
    assert str(tmp_path).startswith(here.point)
    assert mount_of(tmp_path / "not/there/yet") == here
    (tmp_path / "link").symlink_to("/proc/self")
    linked = mount_of(tmp_path / "link")
    assert linked is not None
    assert linked.kind == "proc"


def test_a_mount_is_found_by_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file system is asked: the folder may be on a file server that hangs, or not be there."""
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(ROOT + NFS.format(point="/mnt/not/there", flags="rw", options=""))
    monkeypatch.setattr(module, "MOUNTINFO", mountinfo)
    monkeypatch.setattr(os, "stat", lambda *_, **__: pytest.fail("a file system was asked"))
    named = [mount_named(Path(path)) for path in ("/mnt/not/there/a/b", "/mnt/not")]
    assert [mount is not None and mount.nfs for mount in named] == [True, False]


def test_a_kernel_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No mountinfo, no mount: nothing is said of it."""
    monkeypatch.setattr(module, "MOUNTINFO", tmp_path / "absent")
    assert mount_of(tmp_path) is None
    assert mount_named(tmp_path) is None
