"""Authorities of a test's own, and what they certify."""

import datetime as dt
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Certified:
    """Somebody's certificate and key, each in a file."""

    certificate: Path
    key: Path

    def together(self) -> Path:
        """Both in one file, as Kafka takes them."""
        both = self.key.with_suffix(".both.pem")
        both.write_bytes(self.key.read_bytes() + self.certificate.read_bytes())
        return both


@dataclass
class Authority:
    """One authority, whose files lie in a folder of its own."""

    folder: Path
    name: str
    _key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        made = _made(self.name, self.name, self._key.public_key())
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        usage = x509.KeyUsage(
            *(True, False, False, False, False),
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        made = made.add_extension(usage, critical=True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        self.file = self.folder / f"{self.name}.pem"
        self.file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def certify(self, name: str, *hosts: str, address: str | None = "127.0.0.1") -> Certified:
        """A certificate for this name, good for these hosts and an address."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _made(name, self.name, key.public_key())
        good_for: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
        if address:
            good_for.append(x509.IPAddress(ipaddress.ip_address(address)))
        if good_for:
            made = made.add_extension(x509.SubjectAlternativeName(good_for), critical=False)
        made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        made = made.add_extension(by, critical=False)
        certified = Certified(self.folder / f"{self.name}.{name}.pem", self.folder / f"{self.name}.{name}.key")
        certified.certificate.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        certified.key.touch(mode=0o600)
        certified.key.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return certified


def _made(name: str, issuer: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
    )
