"""A private certificate authority for tests: what an operator with a CA of his own has."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA; `bundle` is the file that its clients trust."""

    bundle: Path
    folder: Path
    name: x509.Name
    key: ec.EllipticCurvePrivateKey

    def issue(
        self, label: str, *names: str, days: float = 30, started: datetime.datetime | None = None
    ) -> KeyPair:
        """A certificate for the names (loopback's when none are given), good for servers and clients."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _named(label)
        builder = (
            _unsigned(subject, self.name, key, days=days, started=started)
            .add_extension(x509.SubjectAlternativeName([_san(n) for n in names or LOOPBACK]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        return _written(self.folder / label, builder.sign(self.key, hashes.SHA256()), key)


def authority(folder: Path, label: str = "test-ca") -> Authority:
    """Makes a new CA; its files are below the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named(label)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _unsigned(name, name, key, days=30, started=None)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    pair = _written(folder / label, builder.sign(key, hashes.SHA256()), key)
    return Authority(bundle=pair.certificate, folder=folder, name=name, key=key)


def _named(label: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)])


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _unsigned(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    days: float,
    started: datetime.datetime | None,
) -> x509.CertificateBuilder:
    start = started or datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
    )


def _written(stem: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    pair = KeyPair(certificate=stem.with_suffix(".pem"), key=stem.with_suffix(".key"))
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pair
