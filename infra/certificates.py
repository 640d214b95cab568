"""Certificates for the brokers and their clients: an authority of this installation's own, one certificate a principal.

`ca.key` signs, and is needed again only for new principals and renewals: it may be kept elsewhere meanwhile. Each
`<principal>.pem` holds a private key (PKCS #8, unencrypted) and its certificate, as both Kafka and librdkafka read
them. A principal's name is the common name of its certificate.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.broker.ports import HOST
from infra.keys import CA_CERTIFICATE, KeyFile, KeyFileError, credential
from infra.settings import Settings

CA_KEY = "ca.key"
BROKER = "broker"
CA_DAYS = 3650
DAYS = 398
RENEW_DAYS = 30
_BACK = timedelta(hours=1)  # clocks of the machines that look at it differ


@dataclass(frozen=True)
class _Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def init_credentials(settings: Settings, principals: Iterable[str], now: datetime | None = None) -> list[KeyFile]:
    """Make the authority if there is none, and each principal's credential that is missing or ends within 30 days.

    Private keys have mode 0600, their folder 0700. A file that is fit is not written to; where nothing is to be made
    the authority's key need not be there.

    Raises:
        KeyFileError: the authority's key is not here, or a file is no certificate.
    """
    now = now or datetime.now(UTC)
    settings.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = settings.access
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    certificate, key = folder / CA_CERTIFICATE, folder / CA_KEY
    made = [KeyFile(certificate, not certificate.exists())]
    if made[0].made:
        _make_authority(certificate, key, now)
    authority: _Authority | None = None
    hosts = _hosts(settings)
    for principal in principals:
        path = credential(settings, principal)
        fit = path.exists() and _fit(path, hosts if principal == BROKER else (), now)
        if not fit:
            authority = authority or _authority(certificate, key)
            _write(path, _credential(authority, principal, hosts if principal == BROKER else (), now))
        made.append(KeyFile(path, not fit))
    return made


def _hosts(settings: Settings) -> tuple[str, ...]:
    """Names that clients know the brokers by."""
    named = [address.strip().rpartition(":")[0].strip("[]") for address in settings.bootstrap.split(",")]
    return tuple(dict.fromkeys([HOST, "localhost", *named]))


def _make_authority(certificate: Path, key_file: Path, now: datetime) -> None:
    if key_file.exists():
        raise KeyFileError(
            f"{certificate} is missing beside {key_file}: restore it, or move the key away for a new one"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Lethe")
    made = (
        _builder(name, name, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(key_file, _private(key))
    _write(certificate, made.public_bytes(serialization.Encoding.PEM), 0o644)


def _authority(certificate: Path, key_file: Path) -> _Authority:
    if not key_file.exists():
        raise KeyFileError(f"{key_file} is not here: credentials are made where the authority's key is")
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        signed = x509.load_pem_x509_certificate(certificate.read_bytes())
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or signed.public_key() != key.public_key():
        raise KeyFileError(f"{key_file} and {certificate} do not belong together: restore them")
    return _Authority(key, signed)


def _credential(authority: _Authority, principal: str, hosts: tuple[str, ...], now: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH] + [ExtendedKeyUsageOID.SERVER_AUTH] * bool(hosts)
    builder = (
        _builder(_name(principal), authority.certificate.subject, key.public_key(), now, DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(h) for h in hosts]), critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    return _private(key) + certificate.public_bytes(serialization.Encoding.PEM)


def _fit(path: Path, hosts: tuple[str, ...], now: datetime) -> bool:
    """Whether a credential has more than 30 days to go and names every host."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (ValueError, IndexError):
        raise KeyFileError(f"{path} holds no certificate: restore it, or move it away for a new one") from None
    if found.not_valid_after_utc < now + timedelta(days=RENEW_DAYS):
        return False
    if not hosts:
        return True
    try:
        named = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return all(_alternative(host) in named for host in hosts)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACK)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
