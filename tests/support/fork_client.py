"""Begins a program in a fork of `tests.support.forks`, as if it had been started here.

    python -I -S fork_client.py SOCKET -m MODULE|PATH [ARGUMENT ...]

Rule: it has the fork's status, and hands it signals; it imports only what is built in, and costs a
tenth of a program that imports Twisted.
"""

import marshal
import os
import signal
import sys
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket

HANDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


def main(path: str, command: list[str]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDED)
    link = socket(AF_UNIX, SOCK_STREAM)
    link.connect(path)
    row = marshal.dumps((command, os.getcwd(), dict(os.environ)))
    streams = b"".join(number.to_bytes(4, sys.byteorder) for number in range(3))
    link.sendmsg([len(row).to_bytes(8, "big")], [(SOL_SOCKET, SCM_RIGHTS, streams)])
    link.sendall(row)
    for number in range(3):
        os.close(number)
    pid = int.from_bytes(link.recv(8), "big")
    for number in HANDED:
        signal.signal(number, lambda number, _: os.kill(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDED)
    told = link.recv(8)
    status = int.from_bytes(told, "big", signed=True) if told else -signal.SIGKILL
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


main(sys.argv[1], sys.argv[2:])
