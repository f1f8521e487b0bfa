"""Containers as manifests describe them, run as what a container is to the kernel; see `namespaces`.

What is read of a manifest is what decides whether the metrics work: users, groups, volumes, variables and commands.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dockerfile_parse import DockerfileParser
from helpers import wait_for
from namespaces import Person, Volume, child_of, command
from pages import ROOT
from units import programs

DOCKER = ROOT / "contrib" / "docker"
KUBERNETES = ROOT / "contrib" / "kubernetes"


@dataclass(frozen=True)
class Disk:
    """What a volume in memory is mounted with."""

    size: str
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True)
class Container:
    """One of a manifest. who: its user. can_write: whether it has the volume for writing."""

    command: list[str]
    environment: dict[str, str]
    who: Person
    can_write: bool


@dataclass(frozen=True)
class Pod:
    """An app and its exporter, the volume between them, and what has to end before they start."""

    before: list[Container]
    app: Container
    exporter: Container
    disk: Disk


def kubernetes() -> Pod:
    """As the kubelet would run it: fsGroup gives the folder of the volume to the group, and sets its setgid bit."""
    spec = yaml.safe_load((KUBERNETES / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    group, memory = spec["securityContext"]["fsGroup"], spec["volumes"][0]["emptyDir"]
    assert memory["medium"] == "Memory"

    def container(one: dict[str, Any]) -> Container:
        who = Person(one["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"], (group,))
        (mount,) = one["volumeMounts"]
        environment = {variable["name"]: variable["value"] for variable in one.get("env", [])}
        return Container(one["command"], environment, who, not mount.get("readOnly", False))

    app, exporter = map(container, spec["containers"])
    before = [container(one) for one in spec["initContainers"]]
    return Pod(before, app, exporter, Disk(memory["sizeLimit"].removesuffix("i").lower(), 0o2777, 0, group))


def compose() -> Pod:
    """As Docker Compose would: what the image says, and what the service says instead."""
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    with (DOCKER / "Dockerfile").open("rb") as file:
        image = DockerfileParser(fileobj=file, cache_content=True)
        structure = {one["instruction"]: one["value"] for one in image.structure}
        environment = dict(image.envs)
    environment.pop("PATH")

    def container(one: dict[str, Any]) -> Container:
        uid, gid = map(int, one.get("user", structure["USER"]).split(":"))
        (volume,) = one["volumes"]
        said = one.get("command") or yaml.safe_load(structure["CMD"])
        return Container(said, environment | one.get("environment", {}), Person(uid, gid), not volume.endswith(":ro"))

    options = dict(one.split("=") for one in services["volumes"]["metrics"]["driver_opts"]["o"].split(","))
    disk = Disk(options["size"], int(options["mode"], 8), int(options["uid"]), int(options["gid"]))
    return Pod([], container(services["services"]["app"]), container(services["services"]["exporter"]), disk)


class Host:
    """A place where containers run. ports: what each port of the manifests is here."""

    def __init__(self, folder: Path, ports: dict[str, int]):
        self.folder, self._ports = folder, ports
        self.volume, self._seen = folder / "volume", folder / "metrics"
        self.volume.mkdir()
        self._seen.mkdir()
        self.log = folder / "log"

    def here(self, text: str) -> str:
        """The text with the places of this run."""
        for port, here in self._ports.items():
            text = text.replace(f":{port}", f":{here}")
        return re.sub(r"(?<!\w)/metrics", str(self._seen), text.replace("0.0.0.0:", "127.0.0.1:"))

    @contextlib.contextmanager
    def running(self, one: Container) -> Iterator[Callable[[int], int]]:
        """Start a container; gives what sends a signal to its first process, and returns the status of its end."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.command(one, one.command),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env=self._environment(one),
            )
        try:
            first = int(str(wait_for(lambda: child_of(process.pid))))

            def end(number: int) -> int:
                os.kill(first, number)
                return process.wait(20)

            yield end
        finally:
            process.kill()  # the kernel ends what is in its namespace
            process.wait()

    def command(self, one: Container, inner: list[str]) -> list[str]:
        """What runs something in such a container."""
        volumes = {str(self._seen): Volume(self.volume, not one.can_write)}
        scratch = Path(tempfile.mkdtemp(dir=self.folder))
        return command([self.here(word) for word in inner], one.who, scratch, volumes=volumes, is_container=True)

    def run(self, one: Container, inner: list[str]) -> bool:
        """Run a command in such a container to its end; whether it succeeds."""
        done = subprocess.run(
            self.command(one, inner), cwd=self.folder, env=self._environment(one), capture_output=True, timeout=20
        )
        return done.returncode == 0

    def _environment(self, one: Container) -> dict[str, str]:
        """Its variables, and where this Python's programs are."""
        said = {name: self.here(value) for name, value in one.environment.items()}
        return {"PATH": f"{programs()}:{os.environ['PATH']}", **said}
