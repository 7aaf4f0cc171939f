"""The configuration of a small Swift: three devices, three copies of each object, and a ledger before each server.

Not here: starting it (`swiftservices`).
"""

import os
import pwd
import subprocess
from collections.abc import Mapping
from pathlib import Path

PIPELINE = (
    "catch_errors gatekeeper ledger healthcheck cache listing_formats bulk tempurl tempauth copy container-quotas slo"
    " dlo proxy-server"
)
_EGGS = {
    "catch_errors": "",
    "gatekeeper": "",
    "healthcheck": "",
    "listing_formats": "",
    "bulk": "",
    "tempurl": "",
    "copy": "",
    "container-quotas": "",
    "slo": "min_segment_size = 1",
    "dlo": "",
}

_LEDGER = '''import os


def make(conf, path, **more):
    """Notes each request before it is answered."""
    sink = open(path, "a", buffering=1)
    os.fsync = os.fdatasync = lambda fd: None  # nothing here must outlive a power cut

    def wrap(app):
        def serve(environ, start_response):
            query = "?" + environ["QUERY_STRING"] if environ.get("QUERY_STRING") else ""
            sink.write("%s %s%s\\n" % (environ["REQUEST_METHOD"], environ["PATH_INFO"], query))
            return app(environ, start_response)

        return serve

    return wrap
'''

_PATIENT = "conn_timeout = 20\nnode_timeout = 60\ncontainer_update_timeout = 30\n"
"""A busy machine is no reason to give a server up, nor to leave a listing to a program that does not run here."""

_RINGS = """
import sys
from swift.common.ring import RingBuilder
etc, *ports = sys.argv[1:]
for kind, port in zip(("account", "container", "object"), ports):
    copies = 3 if kind == "object" else 1
    builder = RingBuilder(8, copies, 0)
    for device in range(copies):
        builder.add_dev({
            "id": device, "region": 1, "zone": device, "weight": 1.0, "device": "d%d" % device, "meta": "",
            "ip": "127.0.0.1", "port": int(port), "replication_ip": "127.0.0.1", "replication_port": int(port),
        })
    builder.rebalance(seed="1")
    builder.get_ring().save("%s/%s.ring.gz" % (etc, kind))
"""


def configure(
    folder: Path, python: Path, ports: Mapping[str, int], *, users: Mapping[str, str], token_life: int
) -> None:
    """Files and rings below `folder`; users are `account:name` with key and groups."""
    etc = folder / "etc"
    etc.mkdir(parents=True)
    for device in range(3):
        (folder / "devices" / f"d{device}").mkdir(parents=True)
    (etc / "ledger.py").write_text(_LEDGER)
    (etc / "swift.conf").write_text("[swift-hash]\nswift_hash_path_prefix = a\nswift_hash_path_suffix = b\n")
    kinds = ("account", "container", "object")
    for kind in kinds:
        text = _default(folder, kind, ports[kind])
        text += f"[pipeline:main]\npipeline = healthcheck ledger {kind}-server\n"
        text += f"[app:{kind}-server]\nuse = egg:swift#{kind}\n{_PATIENT}"
        text += "[filter:healthcheck]\nuse = egg:swift#healthcheck\n"
        (etc / f"{kind}-server.conf").write_text(text)
    (etc / "proxy-server.conf").write_text(_proxy(folder, ports, users, token_life))
    subprocess.run([python, "-c", _RINGS, etc, *(str(ports[kind]) for kind in kinds)], check=True)


def _default(folder: Path, kind: str, port: int) -> str:
    return f"""[DEFAULT]
swift_dir = {folder / "etc"}
user = {pwd.getpwuid(os.geteuid()).pw_name}
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
log_level = WARNING
log_address = {folder / "no-syslog"}
devices = {folder / "devices"}
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
[filter:ledger]
paste.filter_factory = ledger:make
path = {folder / kind}.ledger
"""


def _proxy(folder: Path, ports: Mapping[str, int], users: Mapping[str, str], token_life: int) -> str:
    filters = "".join(
        f"[filter:{name}]\nuse = egg:swift#{name.replace('-', '_')}\n{more if '=' in more else ''}\n"
        for name, more in _EGGS.items()
    )
    known = "".join(f"user_{user.replace(':', '_')} = {key}\n" for user, key in users.items())
    return f"""{_default(folder, "proxy", ports["proxy"])}
[pipeline:main]
pipeline = {PIPELINE}
[app:proxy-server]
use = egg:swift#proxy
{_PATIENT}account_autocreate = true
allow_account_management = true
error_suppression_interval = 0.1
{filters}
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{ports["memcached"]}
memcache_max_connections = 100
pool_timeout = 20
connect_timeout = 5
io_timeout = 20
[filter:tempauth]
use = egg:swift#tempauth
token_life = {token_life}
{known}
"""
