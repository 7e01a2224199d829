"""Redaction: secrets and addresses planted in code go, what only looks like them stays, lines stay where they are.

Secrets are put together here from pieces, so that no scanner takes this file for a leak.
"""

import base64
import hashlib
import ipaddress
import json
import random
import string
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codegen25.data.addresses import PRIVATE
from codegen25.data.credentials import looks_random
from codegen25.data.document import Redaction
from codegen25.data.redact import redact

DRAW = random.Random(20)
ALPHANUMERIC = string.ascii_letters + string.digits
BASE64 = ALPHANUMERIC + "+/"


def some(count: int, letters: str = ALPHANUMERIC) -> str:
    """Random letters; every key has a digit and a letter of either case, where there are such."""
    while True:
        drawn = "".join(DRAW.choices(letters, k=count))
        if all(set(drawn) & set(kind) for kind in (string.digits, letters.strip(string.digits + "+/-_")[:26])):
            return drawn


def token(claims: dict[str, object]) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "." + some(43)


UPPER = string.ascii_uppercase + "234567"
HEX = "0123456789abcdef"
# The kind, a line of code, and what must not be left of it.
PLANTED = {
    "AWS id": ("key", 'AWS_ACCESS_KEY_ID = "{}"', "AK" + "IA" + some(16, UPPER)),
    "AWS secret": ("key", 'aws_secret_access_key = "{}"', some(40, BASE64)),
    "GitHub": ("key", "client = Client('{}')", "gh" + "p_" + some(36)),
    "GitHub, fine-grained": ("key", "# use {} here", "github" + "_pat_" + some(22) + "_" + some(59)),
    "GitLab": ("key", 'GITLAB="{}"', "gl" + "pat-" + some(20)),
    "Slack": ("key", "slack: {}", f"xo{'xb'}-{'83' * 6}-{'47' * 6}-{some(24)}"),
    "Slack hook": ("key", 'u = "{}"', f"https://hooks.sl{'ack'}.com/services/T{some(8, UPPER)}/B0A1B2C3/{some(24)}"),
    "Stripe": ("key", 'stripe.api_key = "{}"', "sk" + "_live_" + some(24)),
    "Google": ("key", 'maps("{}")', "AI" + "za" + some(35)),
    "JWT": ("key", "Authorization: Bearer {}", token({"sub": some(12), "iat": 1516239022})),
    "npm": ("key", "//host/:_authToken={}", "npm" + "_" + some(36)),
    "PyPI": ("key", "token = {}", "py" + "pi-AgEIcHlwaS5vcmc" + some(80)),
    "Azure": ("key", 'c = "AccountName=acme;AccountKey={};EndpointSuffix=x"', some(86, BASE64) + "=="),
    "Hugging Face": ("key", 'login("{}")', "hf" + "_" + "".join(DRAW.choices(string.ascii_letters, k=34))),
    "SendGrid": ("key", 'k="{}"', "SG" + "." + some(22) + "." + some(43)),
    "Twilio": ("key", 'sid="{}"', "SK" + some(32, HEX)),
    "Telegram": ("key", 'bot = "{}"', "5913847260" + ":AA" + some(33)),
    "Mailchimp": ("key", 'm = "{}"', some(32, HEX) + "-us12"),
    "a key of anybody": ("key", 'api_key = "{}"', some(32)),
    "a password": ("password", 'password = "{}"', "kX9$vQ2!mZ7pL4wR"),
    "a password in YAML": ("password", "  db_password: {}", "Zt7" + some(13)),
    "a password in a URL": ("password", 'url = "https://deploy:{}@host.acme.io/x"', "tR5vB8nM2q"),
    "a database's": ("password", "DATABASE_URL=postgres://app:{}@db.acme.io:5432/app", some(14)),
    "an e-mail address": ("email", "# Author: <{}>", "some.body+code" + "@" + "acme.co.uk"),
    "an e-mail in a URL": ("email", "https://acme.io/?mail={}&x=1", "somebody" + "@" + "acme.io"),
    "an IPv4 address": ("ip", 'host = "{}"', "93.184.216.34"),
    "an IPv4 address in a URL": ("ip", "http://{}:8080/x", "52.95.110.1"),
    "an IPv6 address": ("ip", "ping6 {}", "2a02:ec80:300:ed1a::1"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_planted_secrets_are_gone(name: str) -> None:
    kind, line, secret = PLANTED[name]
    before, after = "import os\n\n", "\nx = 1\n"
    text, redactions = redact(before + line.format(secret) + after)
    assert secret not in text
    assert redactions == (Redaction(kind, 3),)
    start, end = line.split("{}")
    left = text.removeprefix(before + start).removesuffix(end + after)
    assert left == f"<{kind.upper()}>" if kind != "ip" else ipaddress.ip_address(left).is_private


def test_a_secret_is_one_wherever_it_stands() -> None:
    _, line, secret = PLANTED["GitHub"]
    text, redactions = redact(f"{line.format(secret)}\n\n# was {secret}, is {secret}\n")
    assert secret not in text
    assert [one.line for one in redactions] == [1, 3, 3]


def test_what_authors_say_is_no_secret_is_read_too_and_so_is_what_follows_a_nul() -> None:
    _, line, secret = PLANTED["Slack"]
    for text in (f"{line.format(secret)}  # gitleaks:allow\n", f"\0\n{line.format(secret)}\n"):
        assert secret not in redact(text)[0]


def test_all_together_in_one_text() -> None:
    text = "".join(line.format(secret) + "\n\n" for _, line, secret in PLANTED.values())
    clean, redactions = redact(text)
    assert not [name for name, (_, _, secret) in PLANTED.items() if secret in clean]
    assert [one.line for one in redactions] == list(range(1, 2 * len(PLANTED), 2))
    assert Counter(one.kind for one in redactions) == Counter(kind for kind, _, _ in PLANTED.values())
    assert redact(clean) == (clean, ())


# Private keys

KINDS = ["RSA ", "OPENSSH ", "EC ", "ENCRYPTED ", ""]


def block(kind: str, rows: list[str], end: str = "\n") -> str:
    return end.join([f"-----BEGIN {kind}PRIVATE {'KEY'}-----", *rows, f"-----END {kind}PRIVATE {'KEY'}-----"])


def rows(count: int = 12) -> list[str]:
    return [some(64, BASE64) for _ in range(count)] + [some(30, BASE64) + "=="]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\\n", '\\n"\n    "', "\n    ", "\n# "])
def test_private_keys_leave_their_marks_and_their_lines(kind: str, end: str) -> None:
    key = rows()
    source = f'first = 1\nKEY = """{block(kind, key, end)}"""\nlast = 1\n'
    text, redactions = redact(source)
    assert not [row for row in key if row in text]
    expected = source
    for number, row in enumerate(key):
        expected = expected.replace(row, "" if number else "<KEY>")
    assert text == expected
    assert redactions == (Redaction("key", 3 if end.count("\n") else 2),)
    assert redact(text) == (text, ())


def test_headers_of_a_private_key_and_one_cut_off() -> None:
    key = rows()
    legacy = block("RSA ", ["Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,0123", "", *key])
    text, redactions = redact(legacy)
    assert not [row for row in key if row in text]
    assert redactions == (Redaction("key", 5),)
    cut = block("RSA ", key).partition("-----END")[0] + "\nThese words are some prose, and they stay.\n"
    text, redactions = redact(cut)
    assert not [row for row in key if row in text]
    assert text.endswith("\nThese words are some prose, and they stay.\n")


def test_code_about_private_keys_stays() -> None:
    text = (
        f'BEGIN = "-----BEGIN RSA PRIVATE {"KEY"}-----"\n\n\ndef is_key(text: str) -> bool:\n'
        f'    return BEGIN in text\n\n\nEND = "-----END RSA PRIVATE {"KEY"}-----"\n'
    )
    assert redact(text) == (text, ())
    shown = block("RSA ", ["..."])
    assert redact(shown) == (shown, ())


# What stays


@pytest.mark.parametrize(
    "line",
    [
        "password=password,", "self._password = self.get_password()", 'password = "password123"', "password: SecretStr",
        'api_key = "your-api-key"', 'api_key = os.environ["API_KEY"]', 'token = "xxxxxxxxxxxxxxxxxxxx"',
        'token: str = Field(default_factory=lambda: secrets.token_hex(16))', 'AWS_KEY = "AKIA' + 'IOSFODNN7EXAMPLE"',
        "postgres:~//user:pass@localhost:5432/foobar", "http:~//username:password@host.com:80/path",
        "amqp:~//guest:guest@broker:5672", "https://{user}:{password}@host.io/", "ftp://%s:%s@host.io/",
        "id = '26be6b09-91c5-47da-9861-d2d2bb7a7e36'", "client_id = '26be6b09-91c5-47da-9861-d2d2bb7a7e36'",
        '"license_k~ey": "lgpl-2.1-nokia-qt-1.1",', 'key = "gpt-4-turbo-2024-04-09"', 'secret_name = "db-credentials"',
        "Password?: XmlStringMaxLen256;", "SECRET: Base64Sha256Length32",
        "    --hash=sha256:" + hashlib.sha256(b"a").hexdigest(),
        'token_sha256 = "' + hashlib.sha256(b"b").hexdigest() + '"',
        '"integrity": "sha512-' + base64.b64encode(hashlib.sha512(b"c").digest()).decode() + '",',
        "commit = '" + hashlib.sha1(b"d").hexdigest() + "'",
        '<img src="data:image/png;base64,' + base64.b64encode(bytes(range(200))).decode() + '">',
        "<fim_prefix> <|endoftext|> <reponame> <EMAIL> <KEY> <PASSWORD>",
    ],
)  # fmt: skip
def test_samples_names_and_hashes_stay(line: str) -> None:
    line = line.replace("~", "")  # which keeps scanners from stopping here
    assert redact(f"{line}\n") == (f"{line}\n", ())


@pytest.mark.parametrize(
    "line",
    [
        "@app.route", "@pytest.mark.parametrize", "y = a@b.T", "y = q@k.mT", "y = x@w.to(device)", "a@self.name",
        "return this@Activity.id", "return@map.name", "icon@2x.png", "python@2.7", "lodash@4.17.21",
        "react@npm:18.0.0", "git@github.com:owner/name.git", "ssh://git@host.io/x",
        "noreply@acme.io", "no-reply@acme.io", "somebody@localhost", "somebody@example.com",
        "somebody@mail.example.org", "somebody@acme.test", "somebody@acme.invalid", "x@acme", "img@sha256:abc",
        "@acme.io",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_person_stays(line: str) -> None:
    assert redact(f"{line}\n") == (f"{line}\n", ())


@pytest.mark.parametrize(
    "line",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.34", "192.168.1.1", "172.16.0.99", "169.254.169.254", "192.0.2.44",
        "198.51.100.7", "203.0.113.9", "255.255.255.0", "255.255.248.0", "224.0.0.251", "8.8.8.8", "1.1.1.1",
        "version = '10.44.2.1'", "Chrome/87.11.42.88 ", "pkg==1.2.3.44", ">=91.0.44.7", "3.10.2.1", "52.94.76.0/24",
        "1.2.840.113549", "2.5.29.37", "1.3.6.1.4.1.99", "v54.1.2.3", "300.1.2.3", "01.02.03.44", "54.1.2.3rc1",
        "lib-54.1.2.3", "::1", "fe80::1", "2001:db8::1", "2001:4860:4860::8888", "std::vector::begin", "dead::beef",
        "12:30:45", "00:1b:63:84:45:e6", "2024:01:02 12:00", "2001:2::/48", "2001::1",
    ],
)  # fmt: skip
def test_what_is_no_host_of_the_internet_stays(line: str) -> None:
    assert redact(f"x {line}\n") == (f"x {line}\n", ())


# Properties


@given(st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address))
@example(ipaddress.IPv4Address("100.64.1.40"))
@example(ipaddress.IPv4Address("224.0.1.40"))
@example(ipaddress.IPv4Address("208.67.222.222"))
def test_hosts_get_one_private_address_each(address: ipaddress.IPv4Address) -> None:
    text, redactions = redact(f"a {address} b\nc '{address}'\n")
    first, second = text.split()[1], text.split()[4].strip("'")
    assert first == second
    octets = address.packed
    version_or_network = max(octets) < 32 or octets[3] == 0
    field_or_reserved = octets[:3] in {b"\x02\x05\x04", b"\x02\x05\x1d", b"\xc0\x58\x63"} or octets[0] >= 224
    if redactions:
        assert [one.line for one in redactions] == [1, 2]
        assert first in PRIVATE[4]
        assert address.is_global
        assert not version_or_network
        assert not field_or_reserved
    else:
        assert first == str(address)
        known = str(address) in {"1.1.1.1", "8.8.8.8", "9.9.9.9", "208.67.222.222"}
        assert version_or_network or field_or_reserved or known or not address.is_global


PIECES = st.one_of(
    st.sampled_from(
        [line.format(secret) for _, line, secret in PLANTED.values()]
        + [secret for _, _, secret in PLANTED.values()]
        + [block("RSA ", rows(2)), block("", rows(1), "\\n"), "-----BEGIN PRIVATE KE" + "Y-----", *rows(3)]
        + ["<KEY>", "<EMAIL>", "<PASSWORD>", "@", "://", "a:", "\n", "\n", '"', " = ", "password", "token", "."]
    ),
    st.text(max_size=8),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=8).map("".join))
def test_redacting_again_changes_nothing_and_lines_stay(source: str) -> None:
    text, redactions = redact(source)
    assert redact(text) == (text, ())
    assert text.count("\n") == source.count("\n")
    assert list(redactions) == sorted(redactions, key=lambda one: one.line)
    before, after = source.split("\n"), text.split("\n")
    changed = {number for number, (old, new) in enumerate(zip(before, after, strict=True), 1) if old != new}
    assert {one.line for one in redactions} <= changed
    assert bool(changed) == bool(redactions)


@pytest.mark.parametrize(
    "unit", ["a@b.co", "://a:", "SK", "AC", "1.", "2001:", "-----BEGIN PRIVATE KE" + "Y-----", ":AA", "@a."]
)
def test_hostile_repetition_is_read_in_time(unit: str) -> None:
    """Time that grows with the square of the length would take hours here."""
    text = unit * (300_000 // len(unit))
    assert redact(text)[0].count("\n") == 0


def test_random_and_spelled_words() -> None:
    draw = random.Random(3)
    keys = ["".join(draw.choices(ALPHANUMERIC, k=24)) for _ in range(500)]
    assert sum(map(looks_random, keys)) >= 495
    words = [
        "gpl-2.0-plus-ekiga",
        "HTTPPasswordManager",
        "my_long_variable_name_2",
        "x86_64-linux-gnu",
        "2024-01-02T00:00",
    ]
    assert not [word for word in words if looks_random(word)]
