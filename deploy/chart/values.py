"""The chart's values: all that who installs it may choose."""

from typing import Any, Final

from deploy.chart.declared import free_settings, partitions_read, secrets
from deploy.chart.declaring import Group, Value, anything, choice, listed, switch, text, wanted, whole
from deploy.composition import meaning_of, settings_of
from libs.common.cells import NAME
from services import SERVICES

_NAME: Final = {"type": "string", "minLength": 1, "maxLength": 253}
_PEERS: Final = {"type": "object"}
_REQUESTS: Final = {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}}
_FEW: Final = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
_ALL: Final = "all"
"""The settings that every service has."""
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - within a pod, whom NetworkPolicies keep others from
_PRIVATE: Final = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"


def values() -> Group:
    """Every value there is."""
    return Group(
        "Cartwright on Kubernetes.",
        {
            "image": _image("cartwright", "The one image of all processes"),
            "issuer": wanted("The public address of identity, which is the `iss` of access tokens."),
            "jwksUrl": text("Where the keys of that issuer are; identity's own Service unless set."),
            "issuerRootPublicKey": wanted(
                "The public half of the root key that certifies signing keys: a JWK, or a JSON list of several."
            ),
            "consoleUrls": text("Where the console is, with spaces between several; the issuer's `/console/` unless set."),
            "kafka": _kafka(),
            "postgres": Group(
                "The databases. Where they are stands in the addresses that the Secrets below have.",
                {
                    "caSecret": text(
                        "The Secret whose `ca.crt` signed the servers' certificates. Addresses name it as "
                        "`sslrootcert=/etc/cartwright/postgres/ca.crt`."
                    )
                },
            ),
            "provider": _provider(),
            **_cells(),
            "settings": _settings(
                "What every service is set to: its variables without `CARTWRIGHT_`, in lower case (`log_level: debug`).",
                *SERVICES,
            ),
            "services": Group("The services.", {service: _service(service) for service in SERVICES}),
            "drain": _drain(),
            "migrations": _migrations(),
            "gateway": _gateway(),
            "invariants": _invariants(),
            "scheduling": _scheduling(),
            "network": _network(),
            "monitoring": _monitoring(),
            "externalSecrets": _external_secrets(),
        },
    )


def _image(name: str, what: str, tag: str = "") -> Group:
    return Group(
        f"{what}.",
        {
            "repository": text("Where it lies, without a tag.", name, minLength=1),
            "tag": text("Its tag; the chart's version of the application unless set.", tag),
            "digest": text("Its digest (`sha256:…`), which goes before the tag.", pattern="^(sha256:[0-9a-f]{64})?$"),
            "pullPolicy": choice("When it is fetched.", "IfNotPresent", "Always", "Never"),
            "pullSecrets": listed("Names of Secrets that it is fetched with.", _NAME),
        },
    )


def _kafka() -> Group:
    return Group(
        "The cluster. Its topics and rights are those of `deploy/topics.yaml`; each service comes as the user of its own name.",
        {
            "bootstrapServers": wanted("Where it is, with commas between several: `HOST:PORT`."),
            "securityProtocol": choice("How it is spoken to.", "SASL_SSL", "SASL_PLAINTEXT", "SSL", "PLAINTEXT"),
            "saslMechanism": choice(
                "How a password is proven; with the last, a token (`kafkaTokenSecret` of each service).",
                *("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER"),
            ),
            "caSecret": text(
                "The Secret whose `ca.crt` signed the brokers' certificates; without one, the system's authorities."
            ),
            "topicPrefix": text("Stands before every topic and consumer group.", pattern="^[a-zA-Z0-9._-]*$"),
        },
    )


def _provider() -> Group:
    return Group(
        "The way to the payment provider, of payments and of who looks after invariants.",
        {
            "proxy": text(
                "The proxy on it: `http://HOST:PORT`, the provider's own TLS going through. A NetworkPolicy lets through what "
                "`network.provider` names.",
                pattern="^(https?://[^@ ]+)?$",
            ),
            "proxySecret": text("The Secret whose `proxy` is that address, where it has a name and a password in it."),
            "noProxy": text("Where no proxy is asked, with commas between several: `NO_PROXY`."),
            "caSecret": text(
                "The Secret whose `ca.crt` stands for the system's authorities in these, where the proxy ends TLS itself."
            ),
        },
    )


def _cells() -> dict[str, Value | Group]:
    named = {"type": "string", "pattern": f"^({NAME})$"}
    properties = {"name": named, "release": {"type": "string", "minLength": 1}}
    each = {"type": "object", "additionalProperties": False, "required": [*properties], "properties": properties}
    return {
        "cells": listed(
            "Cells besides this release, each `{name: east, release: EAST}`. APIs are given `cell-database-urls` of their "
            "Secrets, operators' verbs find the workers there, and those may ask identity.",
            each,
        ),
        "cell": Group(
            "What makes this release a cell: workers of the services that each cell has databases of, and nothing else.",
            {
                "name": text("Its name. Empty: the main one, with identity, APIs and gateway.", pattern=f"^({NAME})?$"),
                "of": text("The release that is the main one, in the same namespace."),
            },
        ),
    }


def _service(service: str) -> Group:
    needed = secrets(service)
    keys = ", ".join(f"`{key}`" for key in [*needed["required"], *needed["worker"], *needed["sasl"]])
    owner = "`owner-database-url`" + (" and `platform-client-secret`" if service == "identity" else "")
    return Group(
        f"The {service} service.",
        {
            "secret": text(f"The name of its Secret, with the keys {keys}; `RELEASE-{service}` unless set."),
            "ownerSecret": text(f"The name of its owner's, with {owner}; `RELEASE-{service}-owner` unless set."),
            "alsoSecrets": listed("Those of its other secrets that are in its Secret, too.", {"enum": needed["optional"]}),
            **_logins(),
            "postgresCertificateSecret": text(
                "The Secret whose `tls.crt` and `tls.key` say to the database who it is, where it asks. Addresses name them as "
                "`sslcert=/etc/cartwright/postgres/tls.crt` and `sslkey=/etc/cartwright/postgres/tls.key`."
            ),
            "settings": _settings("What both of its processes are set to; goes before the common `settings`.", service),
            "api": _process(service, "api", "Its API processes.", _apis()),
            "worker": _process(service, "worker", "Its workers.", _workers(service)),
        },
    )


def _logins() -> dict[str, Value]:
    return {
        "kafkaTokenSecret": text(
            "The Secret whose `token` something else keeps valid, where `kafka.saslMechanism` asks for one."
        ),
        "kafkaCertificateSecret": text(
            "The Secret whose `tls.crt` and `tls.key` say to the brokers who it is, where they ask. Read when a process starts."
        ),
    }


def _invariants() -> Group:
    return Group(
        "Who looks whether everything is as it must be (`invariants --watch`): one process, whose figures Prometheus has.",
        {
            "enabled": switch("Whether there is one.", default=True),
            "secret": text(
                "The name of its Secret, with the keys `platform-client-secret`, `stripe-api-key` (one that may read is enough), "
                "`kafka-sasl-password`; `RELEASE-invariants` unless set."
            ),
            **_logins(),
            "everySeconds": whole("So long it rests between two looks. Each reads the provider's lists.", 60, 1),
            "scratch": text("What it has read of the topics is kept there, and read anew when it starts.", "2Gi"),
            "resources": anything("What it asks for and may have.", _FEW),
        },
    )


def _process(service: str, kind: str, says: str, scaling: Group) -> Group:
    return Group(
        says,
        {
            "replicas": whole("So many, where `autoscaling` is off.", 2),
            "autoscaling": scaling,
            "settings": _settings(f"What these are set to; goes before `services.{service}.settings`.", service),
            "resources": anything(f"What a {kind} process asks for and may have.", _REQUESTS),
        },
    )


def _apis() -> Group:
    return Group(
        "By the share of the requested CPU that they use (HorizontalPodAutoscaler).",
        {
            "enabled": switch("Whether it is done.", default=True),
            "min": whole("At least so many.", 2, 1),
            "max": whole("At most so many. Each opens up to 12 connections to its database.", 6, 1),
            "cpuPercent": whole("More are started above this share.", 70, 1, 100),
        },
    )


def _workers(service: str) -> Group:
    most = partitions_read(service)
    return Group(
        "By their lag from the stored positions, asked of Prometheus (KEDA's ScaledObject).",
        {
            "enabled": switch("Whether it is done; it needs KEDA and `monitoring.prometheusAddress`.", default=False),
            "min": whole("At least so many. Two, so that one stands by when the other dies.", 2, 1, most),
            "max": whole(
                f"At most so many; its topics have {most} partitions, and a worker without one has nothing to do.", 6, 1, most
            ),
            "lagPerWorker": whole("More are started when each would have more records than this before it.", 500, 1),
        },
    )


def _settings(says: str, *services: str) -> Value:
    """Free settings, each as its service declares it. None has a default here: that is the code's."""
    return Value(says, {}, {"$ref": f"#/$defs/{services[0] if len(services) == 1 else _ALL}"})


def definitions() -> dict[str, Any]:
    """What the settings of each service may be, and of all of them."""
    common = set[str].intersection(*({*free_settings(service)} for service in SERVICES))
    return {_ALL: _settings_schema(SERVICES[0], common)} | {
        service: _settings_schema(service, {*free_settings(service)}) for service in SERVICES
    }


def _settings_schema(service: str, names: set[str]) -> dict[str, Any]:
    properties = {name: _setting(service, name) for name in free_settings(service) if name in names}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _setting(service: str, name: str) -> dict[str, Any]:
    kind = settings_of(service)
    found: dict[str, Any] = kind.model_json_schema()["properties"][name]
    return {"description": meaning_of(kind, name)} | {key: value for key, value in found.items() if key != "title"}


def _drain() -> Group:
    return Group(
        "How a process leaves. Kubernetes waits for the sum of both and 15 seconds more.",
        {
            "preStopSeconds": whole("So long it goes on as before while everybody hears that it leaves.", 5),
            "seconds": whole("So long requests may take to end after that; as long as the longest `Prefer: wait`.", 30, 1),
        },
    )


def _migrations() -> Group:
    return Group(
        "A Job for each service before each upgrade. Processes of the version before can live with what it does.",
        {
            "enabled": switch("Whether the chart does it.", default=True),
            "deadlineSeconds": whole("After so long it has failed, and the upgrade with it.", 600, 10),
            "retries": whole("So often it is tried again, for instance when a table was locked.", 5),
            "resources": anything("What it asks for and may have.", _FEW),
        },
    )


def _gateway() -> Group:
    return Group(
        "Envoy, which customers come through. Its configuration is made by `gateway config` of the image of the services.",
        {
            "enabled": switch("Whether the chart has one.", default=True),
            "image": _image("envoyproxy/envoy", "Envoy's own image", "distroless-v1.40.0"),
            "replicas": whole("So many, where `autoscaling` is off.", 2),
            "autoscaling": _apis(),
            "concurrency": whole("So many threads answer requests in each.", 2, 1),
            "trustedHops": whole("So many proxies of yours stand before it; one, where a Gateway's own does.", 0),
            "tlsSecret": text(
                "The Secret with `tls.crt` and `tls.key`; without one it speaks plainly, to whoever ends TLS before it."
            ),
            "serviceType": choice("What kind of Service it is behind.", "ClusterIP", "LoadBalancer", "NodePort"),
            "serviceAnnotations": anything("Annotations of that Service."),
            "resources": anything("What it asks for and may have.", _REQUESTS),
            "route": Group(
                "Gateway API: a route from a Gateway of yours, or of this chart's, to Envoy.",
                {
                    "enabled": switch("Whether there is one.", default=False),
                    "hostnames": listed("The names it is for.", _NAME),
                    "parentRefs": listed("The Gateways it hangs on; this chart's own unless set.", {"type": "object"}),
                    "gatewayClassName": text("Makes a Gateway of this class."),
                    "tlsSecret": text("The Secret of the certificate with which that Gateway ends TLS."),
                },
            ),
        },
    )


def _scheduling() -> Group:
    return Group(
        "Where processes run.",
        {
            "zoneSpread": choice("What becomes of a process for which no zone has room.", "ScheduleAnyway", "DoNotSchedule"),
            "hostSpread": choice("The same of machines.", "ScheduleAnyway", "DoNotSchedule"),
            "nodeSelector": anything("Labels that a machine must have."),
            "tolerations": listed("Taints that are borne.", {"type": "object"}),
            "priorityClassName": text("Their priority."),
            "podAnnotations": anything("Annotations of every pod."),
            "userId": whole("The user and group that everything runs as.", 10001, 1),
        },
    )


def _network() -> Group:
    anyone = "An empty list is everybody."
    return Group(
        "Who may connect to whom, of `connections` in `deploy/topics.yaml`.",
        {
            "policies": switch("Whether NetworkPolicies hold to it.", default=True),
            "listen": choice("Where processes listen: everywhere over IPv4, or over both.", _EVERYWHERE, "::"),
            "trustedProxies": text(
                "Networks whose `X-Forwarded-For` the services believe: the gateway's pods. Nobody else reaches them while "
                "`policies` is on.",
                _PRIVATE,
            ),
            "customers": listed(f"Peers that customers come from. {anyone}", _PEERS),
            "prometheus": listed("Peers that ask for metrics.", _PEERS, _namespace("monitoring")),
            "postgres": _outside("The databases.", 5432),
            "kafka": _outside("The brokers.", 9093),
            "provider": _outside("The payment provider, or the proxy to it.", 443),
            "collector": _outside("The OpenTelemetry collector.", 4318),
        },
    )


def _namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _outside(says: str, port: int) -> Group:
    return Group(
        says,
        {
            "ports": listed("Their ports.", {"type": "integer", "minimum": 1, "maximum": 65535}, port),
            "peers": listed("Where they are, as NetworkPolicy peers. An empty list is anywhere.", _PEERS),
        },
    )


def _monitoring() -> Group:
    return Group(
        "Prometheus, as its operator has it.",
        {
            "monitors": switch("Whether there are PodMonitors and ServiceMonitors.", default=False),
            "rules": switch("Whether there are PrometheusRules: every file below `files/alerts`.", default=False),
            "runbooks": text("What stands before a page's name in the `runbook_url` of an alert.", "docs/runbooks/"),
            "labels": anything("Labels by which your Prometheus finds both."),
            "interval": text("How often it asks.", "15s", pattern="^[0-9]+(ms|s|m)$"),
            "prometheusAddress": text("Where KEDA asks for lag, such as the address of Prometheus' Service."),
            "traces": text("Where traces are sent (`OTEL_EXPORTER_OTLP_ENDPOINT`); nowhere unless set."),
        },
    )


def _external_secrets() -> Group:
    return Group(
        "External Secrets: the Secrets above are made from a store. Without it, they are there before the chart is.",
        {
            "enabled": switch("Whether it is done.", default=False),
            "storeKind": choice("What kind of store it is.", "ClusterSecretStore", "SecretStore"),
            "storeName": text("The store."),
            "path": text(
                "What stands before a service's name in the store: `PATH/cart` has a property for each key.", "cartwright"
            ),
            "refresh": text("How often it is looked at again.", "1h"),
        },
    )
