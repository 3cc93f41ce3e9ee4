"""TLS between the brokers of a cluster, and to them: one certificate, which they show and everybody trusts."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from deploy.local.ports import HOST
from deploy.local.state import Home

_LIFETIME: Final = dt.timedelta(days=365)
_RENEWED_BEFORE: Final = dt.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Tls:
    """Where the certificate lies, and where it lies together with its key."""

    certificate: Path
    with_key: Path

    @classmethod
    def of(cls, home: Home) -> Self:
        """The files in the state directory, made unless they are there and good for a while yet."""
        tls = cls(home.path / "kafka-tls.pem", home.path / "kafka-tls.key.pem")
        if not tls._is_good():
            tls._make()
        return tls

    def properties(self) -> dict[str, str]:
        """What a broker is told, for all of its listeners that have TLS."""
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.with_key),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.certificate),
        }

    def _is_good(self) -> bool:
        from cryptography import x509

        if not (self.certificate.exists() and self.with_key.exists()):
            return False
        found = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        return found.not_valid_after_utc - dt.datetime.now(dt.UTC) > _RENEWED_BEFORE

    def _make(self) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        key, began = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the brokers of a local cluster")])
        good_for = [x509.IPAddress(ipaddress.ip_address(HOST)), x509.DNSName("localhost")]
        made = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(began - dt.timedelta(days=1))
            .not_valid_after(began + _LIFETIME)
            .add_extension(x509.SubjectAlternativeName(good_for), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )
        kept = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        for path, content in ((self.with_key, kept + made), (self.certificate, made)):
            draft = path.with_suffix(".new")
            draft.touch(mode=0o600)
            draft.write_bytes(content)
            draft.replace(path)
