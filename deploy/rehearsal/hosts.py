"""Hosts on one machine, to rehearse `ray up` on: each with its own address, processes, /tmp, home and ssh server.

    sudo .venv/bin/python deploy/rehearsal/hosts.py 2          until Ctrl-C

A host is a set of Linux namespaces (network, process, mount and name), joined to the others by a bridge. All else of
the file system is shared, as a folder on NFS would be. `ray stop` on a host sees that host's processes alone.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

COMMANDS = ("ip", "unshare", "nsenter", "ssh", "ssh-keygen", "rsync", "sshd")
# Found also where /usr/sbin is not on the path.
SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

# In the host's namespaces, before its ssh server: a /tmp of its own, for Ray's sockets and address file, and a home.
HOST_SCRIPT = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=1777,size=4g tmp /tmp
mount -t tmpfs -o mode=1777,size=2g shm /dev/shm
mount --bind "$1/passwd" /etc/passwd
hostname "$2"
mkdir -p /run/sshd
echo ready
read go
exec "$3" -D -e -f "$1/sshd_config"
"""
SSHD_CONFIG = """
Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {key}.pub
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
"""


@dataclass(frozen=True, slots=True)
class Host:
    """A host that answers ssh: root, by the key that `rehearsal_hosts` made."""

    name: str
    address: str
    home: Path


def why_not() -> str | None:
    """What keeps this machine from having such hosts; None when nothing does."""
    if os.geteuid() != 0:
        return "namespaces with a network need root"
    missing = [name for name in COMMANDS if shutil.which(name, path=SEARCH_PATH) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: iproute2 util-linux openssh-client openssh-server rsync)"
    for path in (Path(sys.prefix), Path(__file__)):
        if path.resolve().is_relative_to("/tmp"):
            return f"{path} is below /tmp, which a host does not share"
    probe = ["unshare", "--net", "--pid", "--fork", "--mount", "--uts", "ip", "link", "add", "a0", "type", "veth"]
    tried = subprocess.run(probe, capture_output=True, text=True, check=False)
    return f"{' '.join(probe)}: {tried.stderr.strip()}" if tried.returncode else None


@contextlib.contextmanager
def rehearsal_hosts(folder: Path, count: int = 2, bashrc: str = "") -> Iterator[tuple[list[Host], Path]]:
    """`count` running hosts, and the private key that opens them; all their processes end with the context.

    `folder` holds keys and homes and must not be below /tmp. `bashrc` is each host's ~/.bashrc.
    """
    if folder.resolve().is_relative_to("/tmp"):
        raise ValueError(f"folder = {folder} is below /tmp, which a host does not share; expected e.g. one in /var/tmp")
    key = folder / "key"
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    bridge, net = f"cvb{os.getpid()}", f"10.{64 + os.getpid() // 256 % 64}.{os.getpid() % 256}"
    with contextlib.ExitStack() as stack:
        _run("ip", "link", "add", bridge, "type", "bridge")
        stack.callback(_run, "ip", "link", "del", bridge)
        _run("ip", "addr", "add", f"{net}.1/24", "dev", bridge)
        _run("ip", "link", "set", bridge, "up")
        hosts = []
        for number in range(count):
            host = Host(f"host{number}", f"{net}.{10 + number}", folder / f"host{number}" / "home")
            process = _start(host, folder / host.name, key, bashrc)
            stack.callback(_end, process)
            link = f"cv{os.getpid()}n{number}"
            _connect(process.pid, link, bridge, host.address, gateway=f"{net}.1")
            stack.callback(_run, "ip", "link", "del", link)  # a half-closed connection may keep a namespace for minutes
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.close()
            hosts.append(host)
            logger.info("%s: ssh -i %s root@%s", host.name, key, host.address)
        yield hosts, key


def _start(host: Host, folder: Path, key: Path, bashrc: str) -> subprocess.Popen[str]:
    """The host's first process, waiting for its network."""
    host.home.mkdir(parents=True)
    (host.home / ".bashrc").write_text(bashrc, encoding="utf-8")
    accounts = Path("/etc/passwd").read_text(encoding="utf-8").splitlines()
    others = [line for line in accounts if not line.startswith("root:")]
    (folder / "passwd").write_text("\n".join([f"root:x:0:0:root:{host.home}:/bin/bash", *others, ""]), encoding="utf-8")
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(folder=folder, key=key), encoding="utf-8")
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host_key"))
    sshd = shutil.which("sshd", path=SEARCH_PATH)
    assert sshd is not None, "why_not says so before"
    namespaces = ["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with (folder / "sshd.log").open("w") as log:
        process = subprocess.Popen(
            [*namespaces, "sh", "-c", HOST_SCRIPT, "host", str(folder), host.name, sshd],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        _end(process)
        raise RuntimeError(f"{host.name} did not start: {(folder / 'sshd.log').read_text()}")
    return process


def _connect(pid: int, link: str, bridge: str, address: str, gateway: str) -> None:
    """Gives the namespace of process `pid` an eth0 with `address` on the bridge."""
    _run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    _run("ip", "link", "set", link, "master", bridge, "up")
    for command in (
        ["link", "set", "lo", "up"],
        ["addr", "add", f"{address}/24", "dev", "eth0"],
        ["link", "set", "eth0", "up"],
        ["route", "add", "default", "via", gateway],
    ):
        _run("nsenter", "--target", str(pid), "--net", "ip", *command)


def _end(process: subprocess.Popen[str]) -> None:
    """Ends the host: `--kill-child` ends its first process, and with that one the kernel ends all others."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def _run(*command: str) -> None:
    tried = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PATH": SEARCH_PATH})
    if tried.returncode:
        raise RuntimeError(f"{' '.join(command)}: {tried.stderr.strip()}")


def main() -> int:
    """Holds the hosts until Ctrl-C. 1: this machine cannot have them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=2)
    count = parser.parse_args().count
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if reason := why_not():
        logger.error("%s", reason)
        return 1
    with (
        contextlib.suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory(prefix="calibadv-hosts-", dir="/var/tmp") as folder,
        rehearsal_hosts(Path(folder), count),
    ):
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
