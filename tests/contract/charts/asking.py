"""Helm and the schemas of Kubernetes, in the environment of their own that they need, asked once for a whole run."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from deploy.chart.files import CHART, HELM
from deploy.local.state import ROOT

KUBERNETES: Final = "1.37"
SCRIPT: Final = Path(__file__).with_name("render.py.txt")
LOCK: Final = ROOT / "requirements" / "chart.txt"
EXTENSIONS: Final[Mapping[str, Sequence[str]]] = {
    "sigs.k8s.io/gateway-api@v1.6.3": (
        "config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    ),
    "github.com/kedacore/keda/v2@v2.21.0": ("config/crd/bases/keda.sh_scaledobjects.yaml",),
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    "github.com/external-secrets/external-secrets@v0.16.2": ("config/crds/bases/external-secrets.io_externalsecrets.yaml",),
    "github.com/cloudnative-pg/cloudnative-pg@v1.28.0": (
        "config/crd/bases/postgresql.cnpg.io_clusters.yaml",
        "config/crd/bases/postgresql.cnpg.io_databases.yaml",
    ),
}
"""The Go modules that carry the definitions of what the chart and the examples make besides, and where in them these lie."""

Manifest = dict[str, Any]
LEAST: Final[Manifest] = yaml.safe_load(
    """
    issuer: https://shop.example.com
    issuerRootPublicKey: '{}'
    kafka: {bootstrapServers: "kafka-0:9093,kafka-1:9093"}
    """
)
MOST: Final[Manifest] = LEAST | yaml.safe_load(
    """
    kafka: {bootstrapServers: "kafka:9093", caSecret: kafka-ca, topicPrefix: eu., saslMechanism: PLAIN}
    settings: {log_level: debug, http_connections: 5000000, inbox_park_share: 0.25}
    services:
      identity: {alsoSecrets: [previous-master-key], worker: {autoscaling: {enabled: true}}}
      cart: {secret: carts, settings: {log_level: warning}, worker: {autoscaling: {enabled: true}, settings: {log_level: error}}}
      checkout: {worker: {autoscaling: {enabled: true, max: 24}}, api: {replicas: 5, autoscaling: {enabled: false}}}
      payments: {alsoSecrets: [stripe-webhook-secret], worker: {autoscaling: {enabled: true}}}
    gateway:
      tlsSecret: inner
      serviceType: LoadBalancer
      image: {digest: "sha256:0000000000000000000000000000000000000000000000000000000000000000"}
      route: {enabled: true, hostnames: [shop.example.com], gatewayClassName: any, tlsSecret: outer}
    monitoring:
      {monitors: true, rules: true, runbooks: "https://ops/", labels: {release: a}, prometheusAddress: "http://p:9090", traces: "http://c:4318"}
    externalSecrets: {enabled: true, storeName: vault}
    provider: {proxy: "http://proxy:3128", noProxy: ".cluster.local,10.0.0.0/8", caSecret: proxy-ca}
    scheduling: {nodeSelector: {a: b}, tolerations: [{operator: Exists}], priorityClassName: high, podAnnotations: {a: b}}
    network: {listen: "::", postgres: {peers: [{ipBlock: {cidr: 192.0.2.0/24}}]}}
    """
)
TOKENS: Final[Manifest] = LEAST | yaml.safe_load(
    """
    kafka: {bootstrapServers: "kafka:9093", caSecret: kafka-ca, saslMechanism: OAUTHBEARER}
    postgres: {caSecret: postgres-ca}
    provider: {proxySecret: proxy}
    services:
      identity: {kafkaTokenSecret: identity-token, postgresCertificateSecret: identity-database}
      cart: {kafkaTokenSecret: cart-token, postgresCertificateSecret: cart-database}
      checkout: {kafkaTokenSecret: checkout-token, postgresCertificateSecret: checkout-database}
      payments: {kafkaTokenSecret: payments-token, kafkaCertificateSecret: payments-kafka, settings: {stripe_api_base: "http://stripe:1"}}
    invariants: {kafkaTokenSecret: invariants-token, kafkaCertificateSecret: invariants-kafka}
    monitoring: {monitors: true}
    """
)
GIVEN: Final[Mapping[str, Manifest]] = {"least": LEAST, "most": MOST, "tokens": TOKENS}
"""Values that can be meant, each of a whole installation."""
CELLS: Final[Mapping[str, Manifest]] = {
    "a cell": MOST | {"cell": {"name": "east", "of": "shop"}},
    "with cells": MOST | {"cells": [{"name": "east", "release": "east"}, {"name": "west", "release": "west-cartwright"}]},
}
"""Releases that belong together."""
VALUES: Final[Mapping[str, Manifest]] = {
    **GIVEN,
    **CELLS,
    "a cell of nothing": LEAST | {"cell": {"name": "east"}},
    "none": {},
    "misspelt": LEAST | {"isuer": "https://shop.example.com"},
    "unknown setting": LEAST | {"settings": {"log_levels": "debug"}},
    "a password in sight": LEAST | {"provider": {"proxy": "http://somebody:secret@proxy:3128"}},
    "no token": LEAST | {"kafka": {"bootstrapServers": "kafka:9093", "saslMechanism": "OAUTHBEARER"}},
    "too many workers": LEAST | {"services": {"cart": {"worker": {"autoscaling": {"max": 25}}}}},
}


def asked(folder: Path, files: Sequence[Path], extensions: Sequence[Path] = ()) -> Manifest:
    """What became of the chart under all values, and what Kubernetes has against that and against the files."""
    question = {
        "chart": str(CHART),
        "version": KUBERNETES,
        "values": VALUES,
        "files": [str(file) for file in files],
        "extensions": [str(file) for file in extensions],
    }
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = hashlib.sha256(json.dumps([question, *(file.read_text() for file in _inputs(files))]).encode()).hexdigest()
        answer = folder / f"{known}.json"
        if not answer.exists():
            text = _run(_python(folder), "-P", SCRIPT, given=json.dumps(question))
            answer.write_text(text)
        found: Manifest = json.loads(answer.read_text())
        return found


def defined() -> list[Path]:
    """The definitions of the extensions, from the Go modules that carry them. Skips where there is no Go."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("not proven: all that is not Kubernetes' own is as it is defined (Go is not installed)")
    found = []
    for module, files in EXTENSIONS.items():
        said = json.loads(_run(Path(go), "mod", "download", "-json", module, env={"GOFLAGS": "-mod=mod"}))
        found += [Path(said["Dir"]) / file for file in files]
    return found


def told(folder: Path, program: str, *arguments: str | Path) -> str:
    """What a program of that environment says."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _run(_python(folder).with_name(program), *arguments)


def _inputs(files: Sequence[Path]) -> list[Path]:
    return [SCRIPT, LOCK, *sorted(file for file in CHART.rglob("*") if file.is_file()), *files]


def _python(folder: Path) -> Path:
    """The environment's Python, once everything in the lock is installed beside it."""
    known = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    venv, stamp = folder / known, folder / f"{known}.installed"
    uv = Path(sys.executable).with_name("uv")
    if not stamp.exists():
        _run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, venv)
        _run(uv, "pip", "install", "--quiet", "--python", venv / "bin" / "python", "--require-hashes", "-r", LOCK)
        stamp.touch()
    return venv / "bin" / "python"


def _run(*command: str | Path, given: str = "", env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        list(map(str, command)),
        input=given,
        env={**os.environ, **(env or {})},
        cwd=HELM,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"{command[:3]}: {done.stdout[-4_000:]}{done.stderr[-4_000:]}"
    return done.stdout
