"""Where `sqlmetrics serve` listens, and to whom it answers."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from exporting import COMMAND, Exporter, basic, refused, serving
from helpers import wait_for
from looking import worker

from sqlmetrics.exporter import listening
from sqlmetrics.exporter.access import Access, SecretError, of_files

pytestmark = pytest.mark.slow

HAS_IPV6 = socket.has_dualstack_ipv6() and os.path.exists("/proc/net/if_inet6")


@pytest.fixture
def counted(path: str) -> Iterator[str]:
    """A store in which something was counted."""
    with worker(path) as one:
        one.do("count", "/", 1)
        yield path


def secret(folder: Path, text: str, mode: int = 0o600) -> str:
    """A file with a secret."""
    file = folder / f"secret-{time.monotonic_ns()}"
    file.write_text(text)
    file.chmod(mode)
    return str(file)


def certificate(folder: Path) -> tuple[str, str]:
    """A certificate of its own, and its key."""
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    subprocess.run([*command, "-out", cert, "-keyout", key], check=True, capture_output=True)
    return cert, key


@pytest.mark.parametrize("where", ["127.0.0.1:0", "localhost:0", "[::1]:0"])
def test_it_listens_on_tcp(counted: str, where: str) -> None:
    """Both families, and the name for this host."""
    if where.startswith("[") and not HAS_IPV6:
        where = "127.0.0.1:0"
    with serving(counted, listen=where) as exporter:
        assert "requests_total" in exporter.text()


def test_it_listens_on_a_unix_socket_again_after_a_kill(counted: str, folder: Path) -> None:
    """The socket that a killed one has left is replaced, that of a living one is not, and at a good end it is gone."""
    place = f"unix:{folder}/exporter.sock"
    killed = subprocess.Popen([*COMMAND, "--path", counted, "--listen", place], stderr=subprocess.PIPE)
    assert killed.stderr
    assert killed.stderr.readline()
    killed.kill()
    killed.wait()
    killed.stderr.close()
    assert stat.S_ISSOCK(os.stat(f"{folder}/exporter.sock").st_mode)

    with serving(counted, listen=place) as exporter:
        assert exporter.url == place
        assert "requests_total" in exporter.text()
        assert "is in use" in refused("--path", counted, "--listen", place)
        assert "requests_total" in exporter.text()
    assert not os.path.exists(f"{folder}/exporter.sock")


def test_an_exporter_that_ends_leaves_the_socket_of_the_next_one(counted: str, folder: Path) -> None:
    """It waits for a client that does not take its answers, and has hung up its place meanwhile."""
    place = f"{folder}/exporter.sock"
    with contextlib.ExitStack() as stack:
        with serving(counted, listen=f"unix:{place}") as ending, socket.socket(socket.AF_UNIX) as client:
            client.connect(place)
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
            wait_for(lambda: select.select([client], [], [], 0)[0])
            ending.process.send_signal(signal.SIGTERM)
            wait_for(lambda: not _takes(place))
            begun = stack.enter_context(serving(counted, listen=f"unix:{place}"))
            assert ending.process.poll() is None
            client.close()
        assert ending.process.returncode == 0
        assert "requests_total" in begun.text()


def _takes(place: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(place) == 0


def test_a_plain_file_is_not_taken_for_a_socket(counted: str, folder: Path) -> None:
    """It stays as it is."""
    (folder / "precious").write_text("precious")
    refused("--path", counted, "--listen", f"unix:{folder}/precious")
    assert (folder / "precious").read_text() == "precious"


def test_it_takes_a_socket_that_it_is_given(counted: str) -> None:
    """By its number."""
    given = socket.create_server(("127.0.0.1", 0))
    with given, serving(counted, listen=f"fd:{given.fileno()}", fds=[given.fileno()]) as exporter:
        assert exporter.address == given.getsockname()
        assert "requests_total" in exporter.text()


def test_it_takes_the_socket_of_systemd(counted: str) -> None:
    """As sd_listen_fds(3) says: number 3, for the process that the environment names."""
    starter = (
        "import os, socket, sys\n"
        "given = socket.create_server(('127.0.0.1', 0))\n"
        "os.dup2(given.fileno(), 3)\n"
        "os.set_inheritable(3, True)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
    )
    command = [sys.executable, "-c", starter, *COMMAND[1:], "--path", counted, "--listen", "systemd"]
    log = f"{counted}.log"
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stderr=file)
    try:
        assert "requests_total" in Exporter(process, log).text()
    finally:
        process.terminate()
        assert process.wait(20) == 0
    assert "handed on no socket" in refused("--path", counted, "--listen", "systemd")


def test_a_port_in_use_is_told_in_one_line(counted: str) -> None:
    """And what to do."""
    with serving(counted) as exporter:
        host, port = exporter.address
        said = refused("--path", counted, "--listen", f"{host}:{port}")
    assert said == f"sqlmetrics: cannot listen on {host}:{port}: it is in use; name another with --listen\n"


@pytest.mark.parametrize("where", ["9464", "127.0.0.1", "127.0.0.1:99999", "unix:", "fd:x", "fd:9999", "::1:9464"])
def test_nonsense_is_refused(where: str) -> None:
    """With what is wanted."""
    with pytest.raises(listening.ListenError, match="cannot listen on"):
        listening.listen(where)


def test_beyond_this_host_it_wants_tls_and_a_secret(counted: str, folder: Path) -> None:
    """Or to be told that it shall do without."""
    password = secret(folder, "me:secret")
    cert, key = certificate(folder)
    protected = ("--tls-cert", cert, "--tls-key", key)
    for where in (":0", "0.0.0.0:0"):
        said = refused("--path", counted, "--listen", where)
        assert "give --password-file or --token-file and --tls-cert and --tls-key, or say --insecure" in said
    assert "give --tls-cert" in refused("--path", counted, "--listen", ":0", "--password-file", password)
    assert "give --password-file" in refused("--path", counted, "--listen", ":0", *protected)

    with serving(counted, "--insecure", listen="0.0.0.0:0") as exporter:
        assert "requests_total" in exporter.text()
    with serving(counted, *protected, "--password-file", password, listen="0.0.0.0:0") as exporter:
        assert exporter.url.startswith("https://")
        assert exporter.get("/metrics").status == 401
        assert "requests_total" in exporter.text(Authorization=basic("me:secret"))


def test_a_socket_that_is_given_may_not_lead_beyond_this_host_either(counted: str) -> None:
    """Whoever has opened it."""
    with socket.create_server(("0.0.0.0", 0)) as given:
        done = subprocess.run(
            [*COMMAND, "--path", counted, "--listen", f"fd:{given.fileno()}"],
            capture_output=True,
            pass_fds=[given.fileno()],
            timeout=30,
        )
    assert (done.returncode, b"say --insecure" in done.stderr) == (2, True)


@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")
def test_addresses_of_this_host_are_known() -> None:
    """Also one of IPv4 as IPv6 writes it."""
    for address, is_local in (("::1", True), ("::ffff:127.0.0.1", True), ("::", False)):
        with socket.socket(socket.AF_INET6) as one:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            one.bind((address, 0))
            assert listening.is_local(one) is is_local


def test_a_password_is_asked_for_but_not_by_supervisors(counted: str, folder: Path) -> None:
    """Of the page, of its data, of scrapes, and of what is not there."""
    with serving(counted, "--password-file", secret(folder, "me:sécret:x\n")) as exporter:
        for place in ("/", "/metrics", "/api/now", "/nothing"):
            assert exporter.get(place).headers["www-authenticate"].startswith("Basic ")
            for wrong in ("me:secret", "me:sécret", "you:sécret:x", ""):
                assert exporter.get(place, Authorization=basic(wrong)).status == 401
            assert exporter.get(place, Authorization=basic("me:sécret:x")).status in (200, 404)
        assert exporter.get("/metrics", Authorization="Basic ?").status == 401
        assert exporter.get("/-/healthy").status == exporter.get("/-/ready").status == 200


def test_a_token_is_asked_for(counted: str, folder: Path) -> None:
    """As a bearer token."""
    with serving(counted, "--token-file", secret(folder, "s3cr3t\n")) as exporter:
        assert exporter.get("/metrics").headers["www-authenticate"].startswith("Bearer ")
        assert exporter.get("/metrics", Authorization="Bearer other").status == 401
        assert exporter.get("/metrics", Authorization=basic("s3cr3t")).status == 401
        assert "requests_total" in exporter.text(Authorization="bearer s3cr3t")


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("me:secret", 0o644, "is open to all users"),
        ("me:secret", 0o602, "is open to all users"),
        ("secret", 0o600, "USER:PASSWORD"),
        ("", 0o600, "one line"),
        ("me:secret\nyou:secret", 0o600, "one line"),
        (f"me:{'x' * 5000}", 0o600, "bytes at most"),
    ],
)
def test_a_file_that_is_no_secret_is_refused(folder: Path, text: str, mode: int, said: str) -> None:
    """With its name; a group may read it."""
    file = secret(folder, text, mode)
    with pytest.raises(SecretError, match=said) as caught:
        of_files(file, None)
    assert file in str(caught.value)
    assert of_files(secret(folder, "me:secret", 0o640), None).allows(basic("me:secret"))


def test_without_a_secret_anybody_may_ask() -> None:
    """Whatever they say."""
    assert Access().allows("")
    assert Access().allows("Basic ?")
    assert not Access("Bearer", b"x").allows("Bearer ")


def test_a_certificate_that_cannot_be_used_is_told(counted: str, folder: Path) -> None:
    """Missing, no certificate, or a key without one; nothing is served before."""
    text = folder / "text"
    text.write_text("no certificate")
    for file in (folder / "none", text):
        said = refused("--path", counted, "--listen", "127.0.0.1:0", "--tls-cert", str(file), "--tls-key", str(text))
        assert said.startswith(f"sqlmetrics: the certificate {file} or its key {text} cannot be used: ")
    assert "--tls-cert" in refused("--path", counted, "--tls-key", str(folder / "none"))


def test_the_log_escapes_what_would_act_on_a_terminal(folder: Path) -> None:
    """The path comes from anywhere."""
    with serving(str(folder / "a\n\x1b[1mb.sqlite3")) as exporter:
        assert exporter.get("/-/ready").status == 503
        said = exporter.log()

    assert "\x1b" not in said
    assert r"a\n\x1b[1mb.sqlite3 (from --path) at http" in said
    assert "not ready" in said


def test_a_setting_that_cannot_be_used_is_told_at_once(counted: str) -> None:
    """And not to whoever scrapes."""
    assert "SQLMETRICS_MODES" in refused("--path", counted, "--listen", "127.0.0.1:0", SQLMETRICS_MODES="nonsense")
    assert "SQLMETRICS_MODE" in refused("--path", counted, "--listen", "127.0.0.1:0", SQLMETRICS_MODE="nonsense")


def test_no_store_named_at_all_ends_it() -> None:
    """There is nothing to wait for."""
    assert "no store was named" in refused("--listen", "127.0.0.1:0")


def test_without_uvicorn_it_says_what_to_install(counted: str, folder: Path) -> None:
    """In a Python that has none."""
    code = "import sys; sys.modules['uvicorn'] = None; from sqlmetrics.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, "serve", "--path", counted], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "sqlmetrics: serve needs uvicorn: pip install 'sqlmetrics[serve]'\n")
