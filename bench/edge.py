"""What WebSocket, TLS and both cost the gateway on each of its lanes, beside plain TCP and the
floor; one interleaved run, one table.

    python -m bench.edge [--speak tcp,ws,tls,wss] [--lanes relay,python] [--runs N] [--seconds S]
                         [--only TEXT] [--options "..."] [--key KEY] [--tree PATH]...
                         [--base NAME] [--tsv FILE] [--build DIRECTORY]

Columns are named by lane and by what the client port speaks; those that a checkout does not offer
are left out with one line. The certificate is made for the run, ECDSA on P-256. TLS needs OpenSSL
to build the load with (libssl-dev), and is left out without.

Law: figures are compared within one run only. Ratios are to plain TCP on the relay, where it is.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import socket
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.gateways import (
    CONSOLE,
    CPU,
    ROOT,
    Failure,
    Gateway,
    build,
    choose_cases,
    common_arguments,
    compiler,
    measure_all,
    openssl,
    run,
    running,
)
from bench.table import Case, Figure

SPEAKS = ("tcp", "ws", "tls", "wss")
LANES = {"relay": "on", "python": "off"}
CLIENTS = 2000
UNLIMITED = ("--limit-tls-rate", "0")
"""By default those who come for TLS wait for one another."""
CASES = [
    Case("echo 100 x 1 x 1", "echo -c 100", CPU),
    Case("echo 1000 x 1 x 1", "echo -c 1000", CPU),
    Case("echo 100 x 1 x 16", "echo -c 100 -w 16", CPU),
    Case(
        f"{CLIENTS} connections",
        f"connect -c {CLIENTS} -w 32",
        (
            Figure("made a second", "per_second"),
            Figure("made, µs of CPU each", "cpu_us"),
            Figure("idle, KB of memory each", "idle_bytes", 1000),
        ),
    ),
    Case(
        "one too many",
        "refuse -c 100 -w 32",
        (Figure("refused a second", "per_second"), Figure("µs of CPU each", "cpu_us")),
        ("--max-clients", "100"),
    ),
]


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for `localhost` that signed itself, and its key: files in `directory`."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files = directory / "cert.pem", directory / "key.pem"
    files[0].write_bytes(made.public_bytes(pem))
    files[1].write_bytes(key.private_bytes(pem, *plain))
    return files


def client_options(speaks: str, directory: Path) -> list[str]:
    """How a client port is asked for."""
    speaks = speaks.removeprefix("proxy-")
    options = ["--client-addr", "{client}"]
    if speaks in ("ws", "wss"):
        options = ["--client-addr", "127.0.0.1:0", f"--client-{speaks}-addr", "{client}"]
    if speaks in ("tls", "wss"):
        options += ["--client-tls-cert", str(directory / "cert.pem")]
        options += ["--client-tls-key", str(directory / "key.pem")]
    return options


def answers(address: str, speaks: str) -> bool:
    """Whether that port speaks so; behind a proxy it speaks when spoken to, and is believed."""
    if speaks.startswith("proxy-"):
        return True
    host, port = address.split(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, int(port)), timeout=5) as sock:
            end = context.wrap_socket(sock) if speaks in ("tls", "wss") else sock
            with end:
                if speaks in ("tcp", "tls"):
                    return True
                end.sendall(
                    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
                return end.recv(13).startswith(b"HTTP/1.1 101")
    except OSError:
        return False


def lane_gateways(
    tree: Path, speaks: str, lanes: Sequence[str], options: Sequence[str], directory: Path
) -> Iterator[Gateway]:
    """What a checkout offers; a line for each lane that it does not."""
    of = "" if tree == ROOT else f"{tree.name}-"
    for lane in lanes:
        name = f"{of}{lane}" + ("" if speaks == "tcp" else f"-{speaks}")
        port = client_options(speaks, directory)
        command = [*CONSOLE, *port, "--server-addr", "{server}", "--relay", LANES[lane]]
        gateway = Gateway(name, [*command, *options], tree, speaks)
        try:
            with running(gateway) as process:
                if not answers(process.client, speaks):
                    raise Failure(f"it does not speak {speaks}")
        except Failure as failure:
            print(f"# no {name}: {failure}", flush=True)
        else:
            yield gateway


def listed(text: str, known: Sequence[str]) -> list[str]:
    """Raises:
    argparse.ArgumentTypeError: there is something else in it.
    """
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in known:
            raise argparse.ArgumentTypeError(f"{word} is none of {', '.join(known)}")
    return words


def parse_arguments() -> argparse.Namespace:
    parser = common_arguments(__doc__)
    add = parser.add_argument
    add("--speak", default=",".join(SPEAKS), type=lambda text: listed(text, SPEAKS))
    add("--lanes", default=",".join(LANES), type=lambda text: listed(text, list(LANES)))
    add("--no-floor", action="store_true", help="measure no floor")
    add("--base", default="", metavar="NAME", help="what the ratios are to")
    return parser.parse_args()


def compare(arguments: argparse.Namespace, directory: Path) -> None:
    """Measure, and print the table."""
    load, floor = build(arguments.build, "-O2")
    speaks = arguments.speak
    if not openssl(compiler() or ""):
        print("# no TLS: the load was built without OpenSSL (libssl-dev)")
        speaks = [one for one in speaks if one in ("tcp", "ws")]
    if set(speaks) & {"tls", "wss"}:
        make_certificate(directory)
    options = shlex.split(arguments.options)
    if arguments.key:
        options += ["--server-auth-password", arguments.key]
    gateways = [Gateway("floor", [str(floor), "{client}", "{server}"])]
    if arguments.no_floor:
        gateways = []
    for tree in [ROOT, *arguments.tree]:
        for one in speaks:
            more = UNLIMITED if one in ("tls", "wss") else ()
            gateways += lane_gateways(tree, one, arguments.lanes, [*options, *more], directory)
    if not gateways:
        raise Failure("there is nothing to measure")
    names = [gateway.name for gateway in gateways]
    if not arguments.base:
        arguments.base = next((name for name in ("relay", "python") if name in names), names[0])
    measure_all(load, choose_cases(arguments.only, CASES), gateways, arguments)


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as directory:
        run(lambda: compare(arguments, Path(directory)))


if __name__ == "__main__":
    main()
