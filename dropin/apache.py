"""Debian's Apache with mod_wsgi, on the ports and in the folder of a test."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deployment import Deployment, Row
from helpers import wait_for
from pages import blocks

PAGE = "servers/mod-wsgi.md"
USER = "www-data"
_MODULES = "/usr/lib/apache2/modules"
_CONFIGURATION = """
ServerRoot {folder}
ServerName localhost
DefaultRuntimeDir {folder}
PidFile {folder}/apache.pid
Mutex file:{folder}
ErrorLog {folder}/server.log
LogLevel warn wsgi:info
Listen 127.0.0.1:{port}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
{module}
WSGISocketPrefix {folder}/wsgi
{user}
StartServers 2
MinSpareThreads 25
ThreadsPerChild 25
Include {folder}/{site}
"""


@dataclass(frozen=True)
class Site(Row):
    """One way to run the page's app. site: the page's file of that name. launched: with the launcher."""

    site: str = "site.conf"
    launched: bool = False

    def command(self) -> str:
        """The command that starts Apache."""
        launcher = f"{_group()}sqlmetrics run --path {self.store()} --" if self.launched else ""
        return f"{_as_another_user()} {launcher} /usr/sbin/apache2 -f $PWD/apache.conf -D FOREGROUND".lstrip()

    def store(self) -> str:
        """Where the page's WSGI script has the store."""
        (script,) = (block.text for block in blocks(self.path) if block.file == "app.wsgi")
        return re.findall(r'install\("(.*)"\)', script)[0]  # type: ignore[no-any-return]


def _group() -> str:
    return f"env SQLMETRICS_GROUP={USER} SQLMETRICS_MODE=660 " if _user_can_read() else ""


def _as_another_user() -> str:
    """Apache does not serve as root. Where its user cannot read this Python, it is another one that may read all."""
    if os.geteuid() != 0 or _user_can_read():
        return ""
    rights = "--inh-caps=+dac_override --ambient-caps=+dac_override"
    return f"setpriv --reuid={USER} --regid={USER} --clear-groups {rights}"


@cache
def _user_can_read() -> bool:
    """Whether Apache's own user can run this Python."""
    if os.geteuid() != 0:
        return False
    try:
        command = [sys.executable, "-c", "import apsw"]
        return subprocess.run(command, capture_output=True, cwd="/", user=USER, group=USER).returncode == 0
    except PermissionError:
        return False


class Apache(Deployment):
    """Apache with the page's files; change: what they have instead of what."""

    row: Site

    def __init__(self, row: Site, folder: Path, change: Mapping[str, str] | None = None):
        super().__init__(row, folder, change)
        for name in ("one.wsgi", "two.wsgi"):
            (folder / name).write_text((folder / "app.wsgi").read_text())
        module = subprocess.run(
            [os.path.join(os.path.dirname(sys.executable), "mod_wsgi-express"), "module-config"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        (folder / "apache.conf").write_text(
            _CONFIGURATION.format(
                folder=folder,
                port=self.ports[8000],
                modules=_MODULES,
                module=module,
                user=f"User {USER}\nGroup {USER}" if _user_can_read() else "",
                site=row.site,
            )
        )

    def here(self, text: str) -> str:
        """A text of the page with the places of this run in it."""
        return super().here(text).replace("/srv/app/.venv", sys.prefix).replace("/srv/app", str(self.folder))

    def ended(self) -> list[int]:
        """The daemon processes that have ended as they should, with their interpreters."""
        said = r"Python runtime has shut down in daemon process|Python has shutdown"  # the second: before 6
        found = re.findall(rf"\[pid (\d+):.*(?:{said})", self.log())
        return [int(pid) for pid in found]

    def wait_until_gone(self, pids: set[int]) -> None:
        """Wait until processes do not count any more."""
        wait_for(lambda: not pids & self.counting())


@contextlib.contextmanager
def apache(row: Site, folder: Path, change: Mapping[str, str] | None = None) -> Iterator[Apache]:
    """Apache as the page says, until the end of the block; no process of it has crashed by then."""
    server = Apache(row, folder, change)
    try:
        server.start()
        yield server
    except BaseException:
        print(server.log())
        raise
    finally:
        server.stop()
    log = server.log()
    assert not re.search(r"Fatal|Segmentation|Aborted|cannot flush", log), log
