"""Where e-mail and IP addresses stand in a text.

What is reserved for documents (RFC 2606, RFC 5737), private, or nobody's own stays, and so does what code merely
spells like an address.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import string
from collections.abc import Iterator

from codegen25.data.credentials import Span

# Countries' and the common generic endings of domains; a method or an attribute is seldom one.
_TLD = re.compile(
    r"com|org|net|edu|gov|mil|int|info|biz|name|pro|dev|app|tech|online|site|cloud|xyz|email|blog|shop|space|works|"
    r"world|rocks|ninja|life|zone|systems|software|solutions|science|social|wtf|moe|cafe|red|cash|codes|computer|"
    r"engineering|consulting|institute|academy|network|digital|agency|studio|berlin|london|paris|tokyo|coop|aero|asia|"
    r"a[cdefgilmoqrstuwxz]|b[abdefghijmnorstvwyz]|c[acdfghiklmnoruvwxyz]|d[ejkmoz]|e[ceegrstu]|f[ijkmor]|"
    r"g[abdefghilmnpqrstuwy]|h[kmnrtu]|i[delmnoqrst]|j[emop]|k[eghimnprwyz]|l[abcikrstuvy]|m[acdeghklmnopqrstuvwxyz]|"
    r"n[acefgilopruz]|om|p[aefghklmnrstwy]|qa|r[eosuw]|s[abcdeghiklmnorstvxyz]|t[cdfghjklmnortvwz]|u[agksyz]|"
    r"v[aceginu]|w[fs]|y[et]|z[amw]"
)
_DOMAIN = re.compile(r"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,6}([A-Za-z]{2,11}))(?![\w@(]|[.-]\w)")
_LOCAL = string.ascii_letters + string.digits + "._%+-"
MAX_LOCAL = 64
_RESERVED_DOMAIN = re.compile(
    r"(?:.*\.)?(?:example(?:\.[a-z]{2,3}){0,2}|test|invalid|localhost|localdomain)", re.IGNORECASE
)
# Nobody's own, or a user of a machine; and words of languages where `this@Name.id` is code.
_NOBODY = re.compile(r"git|hg|svn|no-?_?reply|do-?_?not-?_?reply|this|super|return|self|break|continue", re.IGNORECASE)

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
# From the first dot on, for which a search is fast; the digits before it are looked at then.
_IPV4_REST = re.compile(rf"\.{_OCTET}\.{_OCTET}\.{_OCTET}(?!\w|-\d*[A-Za-z]|\.\d|/\d)")
_IPV4_FIRST = re.compile(rf"(?<![\w.])(?<![A-Za-z]-){_OCTET}\Z")
# Addresses of hosts begin with 2 or 3 today. What a slash and a length follow is a network, here and above.
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{1,4}(?![\w:]|\.\d|/\d)")
_VERSION = re.compile(
    r"(?:version\w*|\bver|release\w*|revision|build|section|[A-Za-z_]/|[=<>~!^]=|[<>~^§])[\s:=\"'(]*\Z", re.IGNORECASE
)
# The networks that nobody has on the internet, as of RFC 6890. Python's own list changes with its releases.
_NOT_GLOBAL = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/3", "2001::/23", "2001:db8::/32", "2002::/16",
        # No networks but names of X.509's fields, which look like addresses.
        "2.5.4.0/24", "2.5.29.0/24",
    )
)  # fmt: skip
# Servers of names that everybody uses, as StarCoder's makers left them.
_KNOWN = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "149.112.112.112", "208.67.222.222", "208.67.220.220",
        "8.26.56.26", "8.20.247.20", "94.140.14.14", "94.140.15.15", "76.76.19.19", "76.223.122.150",
        "2001:4860:4860::8888", "2001:4860:4860::8844", "2606:4700:4700::1111", "2606:4700:4700::1001", "2620:fe::fe",
    )
)  # fmt: skip
# What StarCoder's makers put in the place of others; here the address's hash chooses, and the same gives the same.
PRIVATE = {
    4: ("172.16.31.10", "172.16.58.3", "172.16.17.32", "192.168.127.12", "192.168.3.11"),
    6: (
        "fd00:c2b6:b24b:be67:2827:688d:e6a1:6a3b", "fd00:a516:7c1b:17cd:6d81:2137:bd2a:2c5b",
        "fc00:e968:6179::de52:7100", "fc00:db20:35b:7399::5", "fdf8:f53e:61e4::18",
    ),
}  # fmt: skip


def find_emails(text: str) -> Iterator[Span]:
    """Addresses of people; what stands in a URL before its host is none."""
    for match in _DOMAIN.finditer(text):
        at = match.start()
        before = text[max(0, at - MAX_LOCAL) : at]
        local = before[len(before.rstrip(_LOCAL)) :].lstrip("._%+-")
        if not local or (not local[-1].isalnum() and local[-1] not in "_+-"):
            continue
        if _is_address(local, match[1], match[2]) and not _in_url(text, at - len(local)):
            yield Span(at - len(local), match.end(), "email", "<EMAIL>")


def _is_address(local: str, domain: str, ending: str) -> bool:
    known = _TLD.fullmatch(ending.lower()) and (ending.islower() or ending.isupper())
    label = domain.split(".")[-2]
    spelled = len(label) > 1 and not _NOBODY.fullmatch(local) and label not in {"self", "this", "cls"}
    return bool(known) and spelled and not _RESERVED_DOMAIN.fullmatch(domain)


def _in_url(text: str, start: int) -> bool:
    """Whether a user stands here, as before the host of a URL."""
    before = re.split(r"[\s\"'<>()]", text[max(0, start - 100) : start])[-1]
    _, scheme, rest = before.rpartition("://")
    return bool(scheme) and not {"/", "?"} & set(rest)


def find_ips(text: str) -> Iterator[Span]:
    """Addresses of hosts on the internet, each with one of a few private ones in its place."""
    for match in _IPV4_REST.finditer(text):
        first = _IPV4_FIRST.search(text, max(0, match.start() - 4), match.start())
        if first and _is_host(text, first.start(), match.end()):
            yield _private(text, first.start(), match.end())
    for match in _IPV6.finditer(text):
        if _is_host(text, *match.span()):
            yield _private(text, *match.span())


def _is_host(text: str, start: int, end: int) -> bool:
    """Whether the address is one of a host: not a version, a number of a section, a network, or everybody's."""
    try:
        address = ipaddress.ip_address(text[start:end])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        octets = address.packed
        # Numbers of versions are small, and those of networks end in 0.
        if max(octets) < 32 or octets[3] == 0 or _VERSION.search(text, max(0, start - 24), start):
            return False
    return address not in _KNOWN and not any(address in network for network in _NOT_GLOBAL)


def _private(text: str, start: int, end: int) -> Span:
    address = ipaddress.ip_address(text[start:end])
    choices = PRIVATE[address.version]
    chosen = hashlib.sha256(str(address).encode()).digest()[0] % len(choices)
    return Span(start, end, "ip", choices[chosen])
