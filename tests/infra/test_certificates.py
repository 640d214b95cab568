"""Credentials: made once, renewed in time, readable by their owner only, signed by one authority."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.certificates import DAYS, RENEW_DAYS, init_credentials
from infra.keys import KeyFileError, credential, credential_of, hand_out
from infra.settings import Settings
from stream_processors.runtime.kafka import client_config, producer_config, ssl_context

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, security="tls", bootstrap="kafka.example:9092,127.0.0.1:19092")


def certificate(settings: Settings, principal: str) -> x509.Certificate:
    return x509.load_pem_x509_certificates(credential(settings, principal).read_bytes())[0]


def made(settings: Settings, *principals: str, now: datetime = NOW) -> list[str]:
    return [file.path.name for file in init_credentials(settings, principals, now) if file.made]


def test_each_principal_has_a_certificate_of_its_own_name(settings: Settings) -> None:
    assert made(settings, "broker", "link", "supplier.dfe") == ["ca.crt", "broker.pem", "link.pem", "supplier.dfe.pem"]
    authority = x509.load_pem_x509_certificate((settings.access / "ca.crt").read_bytes())
    for principal in ("broker", "link", "supplier.dfe"):
        found = certificate(settings, principal)
        found.verify_directly_issued_by(authority)
        assert [a.value for a in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [principal]
        assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_the_broker_alone_may_serve_and_names_every_host(settings: Settings) -> None:
    made(settings, "broker", "link")
    names = certificate(settings, "broker").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "kafka.example"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("127.0.0.1")]
    purposes = certificate(settings, "link").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH], "who steals it cannot pass for the broker"


def test_private_keys_are_readable_by_their_owner_only(settings: Settings) -> None:
    made(settings, "broker", "link")
    assert stat.S_IMODE(settings.access.stat().st_mode) == 0o700
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in settings.access.iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "broker.pem": 0o600, "link.pem": 0o600}


def test_what_is_fit_is_kept_and_what_ends_soon_is_renewed(settings: Settings) -> None:
    made(settings, "broker", "link")
    before = credential(settings, "link").read_bytes()
    assert made(settings, "broker", "link") == []
    soon = NOW + timedelta(days=DAYS - RENEW_DAYS - 1)
    assert made(settings, "link", now=soon) == []
    assert credential(settings, "link").read_bytes() == before
    assert made(settings, "link", now=soon + timedelta(days=2)) == ["link.pem"]
    assert certificate(settings, "link").not_valid_after_utc > soon + timedelta(days=DAYS)


def test_a_broker_that_gets_another_name_gets_another_certificate(settings: Settings) -> None:
    made(settings, "broker", "link")
    moved = settings.model_copy(update={"bootstrap": "10.0.0.7:9092"})
    assert made(moved, "broker", "link") == ["broker.pem"]


def test_without_the_authoritys_key_what_is_there_serves_and_nothing_is_made(settings: Settings) -> None:
    made(settings, "link")
    (settings.access / "ca.key").unlink()
    assert made(settings, "link") == []
    with pytest.raises(KeyFileError, match=r"ca\.key is not here"):
        made(settings, "link", "join")


def test_a_key_without_its_certificate_is_not_replaced(settings: Settings) -> None:
    made(settings, "link")
    (settings.access / "ca.crt").unlink()
    with pytest.raises(KeyFileError, match="restore it"):
        made(settings, "link")


def test_a_client_shows_the_certificate_of_whom_it_acts_for(settings: Settings) -> None:
    made(settings, "link", "enclave")
    config = producer_config(settings.acting_as("link"), "test")
    assert config["security.protocol"] == "ssl"
    assert config["ssl.certificate.location"] == str(settings.access / "link.pem")
    assert config["ssl.endpoint.identification.algorithm"] == "https"
    assert ssl_context(settings.acting_as("enclave")) is not None


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda folder: (folder / "link.pem").unlink(), r"link\.pem is missing; the credential of link"),
        (lambda folder: (folder / "ca.crt").unlink(), r"ca\.crt is missing"),
        (lambda folder: (folder / "link.pem").chmod(0o640), "open to others than its owner"),
        (
            lambda folder: (folder / "link.pem").rename(folder / "x") and (folder / "link.pem").symlink_to("x"),
            "regular",
        ),
    ],
)
def test_a_credential_that_may_not_be_used_stops_the_client(settings: Settings, spoil: object, why: str) -> None:
    made(settings, "link")
    spoil(settings.access)  # type: ignore[operator]
    with pytest.raises(KeyFileError, match=why):
        client_config(settings.acting_as("link"))


@pytest.mark.parametrize(
    ("bootstrap", "allowed"),
    [
        ("127.0.0.1:19092", True),
        ("localhost:19092,127.0.0.1:19093", True),
        ("kafka.example:9092", False),
        ("127.0.0.1:19092,10.0.0.7:9092", False),
        ("127.0.0.1.example:9092", False),
    ],
)
def test_plaintext_does_not_leave_this_machine(tmp_path: Path, bootstrap: str, allowed: bool) -> None:
    settings = Settings(home=tmp_path, security="plaintext", bootstrap=bootstrap)
    if allowed:
        config = client_config(settings)
        assert config["bootstrap.servers"] == bootstrap
        assert not {"security.protocol", "ssl.ca.pem", "ssl.ca.location"} & config.keys()
        assert credential_of(settings) is None
    else:
        with pytest.raises(KeyFileError, match="for loopback only"):
            client_config(settings)


def test_what_is_handed_out_is_the_recipients_alone(settings: Settings, tmp_path: Path) -> None:
    made(settings, "enclave")
    path = hand_out(credential(settings, "enclave"), tmp_path / "out" / "media")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == credential(settings, "enclave").read_bytes()


def test_access_control_is_on_unless_it_is_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LETHE_SECURITY")
    assert Settings().security == "tls"
