"""Hosts that are network namespaces: a centre, and some that it has a cable to, which can be pulled."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

_NEW_NETWORK = 0x40000000


def can_connect() -> bool:
    """Whether this process may make network namespaces and cables between them."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nsenter"):
        return False
    trial = ["unshare", "--net", "ip", "link", "add", "host1", "type", "veth", "peer", "name", "eth0"]
    return subprocess.run(trial, capture_output=True).returncode == 0


class Network:
    """A network namespace, there as long as its only process."""

    def __init__(self, stack: contextlib.ExitStack):
        command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity"]
        self._process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
        stack.callback(self._process.kill)
        assert self._process.stdout
        assert self._process.stdout.readline() == b"up\n"
        self.pid = self._process.pid

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread does meanwhile, and what it starts, is in this network."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _enter(f"/proc/{self.pid}/ns/net")
            yield
        finally:
            _enter(f"/proc/self/fd/{before}")
            os.close(before)

    def run(self, *command: str) -> None:
        """Run a program here."""
        subprocess.run(["nsenter", "--target", str(self.pid), "--net", *command], check=True, timeout=20)


class Host(Network):
    """A host at the end of a cable to the centre. number: of 10.77.NUMBER.2; the centre has 10.77.NUMBER.1."""

    def __init__(self, stack: contextlib.ExitStack, centre: Network, number: int, folder: Path):
        super().__init__(stack)
        self._centre, self.name, self.folder = centre, f"host{number}", folder / f"host{number}"
        self.folder.mkdir()
        self.centre_address, self.address = f"10.77.{number}.1", f"10.77.{number}.2"
        cable = ["ip", "link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid)]
        centre.run(*cable)
        for network, device, address in ((centre, self.name, self.centre_address), (self, "eth0", self.address)):
            network.run("ip", "address", "add", f"{address}/30", "dev", device)
            network.run("ip", "link", "set", device, "up")

    def cut_off(self) -> None:
        """Pull the cable."""
        self._centre.run("ip", "link", "set", self.name, "down")

    def connect(self) -> None:
        """Plug it in again."""
        self._centre.run("ip", "link", "set", self.name, "up")


def _enter(name: str) -> None:
    descriptor = os.open(name, os.O_RDONLY)
    try:
        assert ctypes.CDLL(None, use_errno=True).setns(descriptor, _NEW_NETWORK) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(descriptor)
