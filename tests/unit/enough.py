"""What a process cannot do without, of its settings."""

from tests.shared.roots import PUBLIC_ROOT

ENOUGH = {
    "DATABASE_URL": "postgresql://cart_app:hush@127.0.0.1/cart",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
    "ISSUER": "http://127.0.0.1:8081",
    "JWKS_URL": "http://127.0.0.1:8081/.well-known/jwks.json",
    "ISSUER_ROOT_PUBLIC_KEY": PUBLIC_ROOT,
    "HTTP_PORT": "8082",
}
