"""By which names the page may be reached, and from which pages."""

import socket

import pytest

from deepemd import InputError
from deepemd.apps.web.hosts import Hosts, address

LOCAL = Hosts.bound("127.0.0.1", 7860)
EVERYWHERE = Hosts.bound("0.0.0.0", 7860)


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LocalHost:7860"])
def test_a_page_of_this_machine_only_has_its_names_and_no_other(host):
    assert LOCAL.accept(host, "127.0.0.1")


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example", "evil.example:7860", "127.0.0.1", "localhost", "127.0.0.1:7861", "localhost:99999"),
        *("localhost.evil.example:7860", "127.0.0.1.evil.example:7860", "evil.example@127.0.0.1:7860", "[::1]:7860"),
        *("127.0.0.1:7860/", "127.0.0.1:7860,evil.example", " 127.0.0.1:7860", "2130706433:7860", "192.0.2.1:7860"),
        *("127.0.0.1:7860\n", "localhost:", "ⅼocalhost:7860"),
    ],
)
def test_other_names_are_refused(host):
    assert not LOCAL.accept(host, "127.0.0.1")


def test_a_page_for_the_network_has_the_names_and_addresses_of_the_machine():
    assert EVERYWHERE.accept("192.0.2.7:7860", "192.0.2.7")  # the address of this machine in that network
    assert EVERYWHERE.accept("[2001:db8::7]:7860", "2001:db8::7")
    for name in ("localhost", "127.0.0.1", socket.gethostname(), f"{socket.gethostname()}.local"):
        assert EVERYWHERE.accept(f"{name}:7860", "127.0.0.1")
    for name in ("evil.example:7860", "192.0.2.8:7860", "192.0.2.7", "192.0.2.7:80"):
        assert not EVERYWHERE.accept(name, "192.0.2.7")


def test_addresses_of_ipv6():
    hosts = Hosts.bound("::1", 7860)
    assert hosts.accept("[::1]:7860", "::1")
    assert hosts.accept("localhost:7860", "::1")
    assert not hosts.accept("127.0.0.1:7860", "::1")
    assert hosts.accept_origin("http://[::1]:7860", "[::1]:7860")
    assert Hosts.bound("::", 7860).accept("[2001:db8::7]:7860", "2001:db8::7")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *(("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("0.0.0.0", "localhost"), ("::", "localhost")),
        *(("0", "localhost"), ("localhost", "localhost")),
    ],
)
def test_the_address_for_a_browser_on_this_machine(host, expected):
    assert address(host, 7860) == f"http://{expected}:7860/"


def test_port_80_need_not_be_written():
    assert Hosts.bound("127.0.0.1", 80).accept("localhost", "127.0.0.1")


@pytest.mark.parametrize("allowed", ["Photos.example, b.example:8443", ["photos.example", "b.example:8443"]])
def test_the_names_of_a_proxy_can_be_allowed(allowed):
    hosts = Hosts.bound("127.0.0.1", 7860, allowed)
    for name in ("photos.example", "photos.example:8080", "b.example:8443", "127.0.0.1:7860"):
        assert hosts.accept(name, "127.0.0.1")
    for name in ("b.example", "b.example:8080", "c.photos.example"):
        assert not hosts.accept(name, "127.0.0.1")
    assert hosts.accept_origin("https://photos.example", "127.0.0.1:7860")  # a proxy that changes Host
    assert hosts.accept_origin("https://photos.example", "photos.example")
    assert not hosts.accept_origin("https://c.example", "photos.example")


@pytest.mark.parametrize("allowed", ["https://a.example", "*", "a.example/x", "a b", "a.example:x", ".example"])
def test_what_cannot_be_allowed(allowed):
    with pytest.raises(InputError, match="allowed_hosts has"):
        Hosts.bound("127.0.0.1", 7860, allowed)


@pytest.mark.parametrize(
    ("origin", "accepted"),
    [
        ("http://127.0.0.1:7860", True),
        ("http://localhost:7860", False),  # another page for the browser
        ("http://127.0.0.1:8888", False),  # another program of this machine
        ("http://127.0.0.1", False),
        ("http://evil.example", False),
        ("https://evil.example:7860", False),
        ("http://127.0.0.1:7860.evil.example", False),
        ("http://127.0.0.1:7860@evil.example", False),
        ("null", False),
        ("", False),
        ("file://", False),
        ("http://[", False),
        ("chrome-extension://127.0.0.1:7860", False),
    ],
)
def test_only_the_page_itself_may_use_it(origin, accepted):
    assert LOCAL.accept_origin(origin, "127.0.0.1:7860") is accepted
