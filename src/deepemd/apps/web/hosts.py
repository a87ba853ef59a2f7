"""The names and addresses by which the page may be reached; a request for another name is refused.

A web page elsewhere can point a name of its own at this machine (DNS rebinding), and then use the visitor's browser to
talk to it. Such a request carries the other name in its header ``Host``, or the other page in ``Origin``.
"""

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from deepemd.errors import InputError

__all__ = ["Hosts", "address"]

_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9]([a-z0-9._-]{0,252}[a-z0-9])?)(?::([0-9]{1,5}))?")


class _Name(NamedTuple):
    """A host name or address, with its port if there is one."""

    host: str
    port: int | None

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Read the content of a header ``Host``; return None if it is none."""
        found = _HOST.fullmatch(text.lower())
        return found and cls(found[1], int(found[3]) if found[3] else None)


@dataclass(frozen=True)
class Hosts:
    """The names and addresses by which the page may be reached.

    Attributes:
        host: the name or address that the server listens on; an IPv6 address without brackets.
        port: the port that it listens on.
        allowed: further names that the user allows, such as that of a proxy; without a port, any port.
        names: the names and addresses of the machine at which the server listens, without those of a connection.
    """

    host: str
    port: int
    allowed: tuple[_Name, ...] = ()
    names: frozenset[str] = field(default=frozenset())

    @classmethod
    def bound(cls, host: str, port: int, allowed: str | Sequence[str] | None = None) -> Self:
        """Return the hosts of a server that listens on an address of this machine.

        Args:
            host: the name or address that the server listens on; 0.0.0.0 is every address of this machine.
            port: the port that it listens on.
            allowed: further names, as a sequence or with commas between them.

        Raises:
            InputError: a name in ``allowed`` is not a host name or address.
        """
        entries = allowed.split(",") if isinstance(allowed, str) else allowed or ()
        return cls(host, port, tuple(_allowed(entry.strip()) for entry in entries if entry.strip()), _names(host))

    def accept(self, host: str, local: str) -> bool:
        """Return whether a request may carry this header ``Host``.

        Args:
            host: content of the header.
            local: the address of this machine that the connection was made to.
        """
        name = _Name.read(host)
        if name is None:
            return False
        if self._is_allowed(name):
            return True
        here = self.names | {_in_brackets(local)}
        return name.host in here and (name.port or 80) == self.port

    def accept_origin(self, origin: str, host: str) -> bool:
        """Return whether a request for this host may come from a page of this origin: only from the page itself.

        Args:
            origin: content of the header ``Origin``, or of ``X-Forwarded-Host`` after its scheme.
            host: content of the header ``Host``, which was accepted.
        """
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        name, own = _Name.read(parts.netloc), _Name.read(host)
        if parts.scheme not in ("http", "https") or name is None or own is None or parts.path or parts.query:
            return False
        default = 443 if parts.scheme == "https" else 80
        same = name.host == own.host and (name.port or default) == (own.port or default)
        return same or self._is_allowed(name)

    def _is_allowed(self, name: _Name) -> bool:
        return any(one.host == name.host and one.port in (None, name.port) for one in self.allowed)


def address(host: str, port: int) -> str:
    """Return the address at which a browser on this machine finds a server that listens on this host."""
    everywhere = any(ipaddress.ip_address(one).is_unspecified for one in _addresses(host))
    return f"http://{'localhost' if everywhere else _in_brackets(host)}:{port}/"


def _allowed(entry: str) -> _Name:
    name = _Name.read(entry)
    if name is None:
        raise InputError(f"allowed_hosts has {entry!r}: write only the name that is in the browser, such as a.example")
    return name


def _names(host: str) -> frozenset[str]:
    """Return the names and addresses of a server that listens on a name or address of this machine."""
    addresses = _addresses(host)
    names = {host.lower(), *map(_in_brackets, addresses)}
    if any(ipaddress.ip_address(one).is_loopback for one in addresses):
        return frozenset({"localhost", *names})
    own = socket.gethostname().lower()
    machine = {own, f"{own}.local", socket.getfqdn().lower()}
    if any(ipaddress.ip_address(one).is_unspecified for one in addresses):
        return frozenset({*machine, *_addresses(own), "localhost", "127.0.0.1", "[::1]"})
    return frozenset({*machine, *names})


def _addresses(host: str) -> set[str]:
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError):
        return set()
    return {str(one[4][0]) for one in found}


def _in_brackets(address: str) -> str:
    return f"[{address}]" if ":" in address else address
