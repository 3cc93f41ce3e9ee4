{{/* What every pod has. */}}

{{- define "cartwright.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.scheduling.userId }}
runAsGroup: {{ .Values.scheduling.userId }}
fsGroup: {{ .Values.scheduling.userId }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "cartwright.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "cartwright.pullSecrets" -}}
{{- with .pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "cartwright.placed" -}}
{{- $chosen := include "cartwright.chosen" . -}}
{{- $scheduling := .root.Values.scheduling -}}
topologySpreadConstraints:
  - topologyKey: topology.kubernetes.io/zone
    maxSkew: 1
    whenUnsatisfiable: {{ $scheduling.zoneSpread }}
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels: {{- $chosen | nindent 8 }}
  - topologyKey: kubernetes.io/hostname
    maxSkew: 1
    whenUnsatisfiable: {{ $scheduling.hostSpread }}
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels: {{- $chosen | nindent 8 }}
{{- with $scheduling.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $scheduling.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $scheduling.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Its variables: what the chart decides, then what was chosen. A number in a values file comes as a float. */}}
{{- define "cartwright.settings" -}}
{{- range $name, $value := . }}
{{- if not (kindIs "invalid" $value) }}
- name: CARTWRIGHT_{{ upper $name }}
  value: {{ if and (kindIs "float64" $value) (eq $value (floor $value)) }}{{ int64 $value | toString | quote }}{{ else }}{{ toString $value | quote }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/* How it comes to the brokers: what of that is no secret. */}}
{{- define "cartwright.kafkaLogin" -}}
{{- $kafka := .root.Values.kafka -}}
kafka_bootstrap_servers: {{ $kafka.bootstrapServers | quote }}
kafka_security_protocol: {{ $kafka.securityProtocol }}
{{- if hasPrefix "SASL_" $kafka.securityProtocol }}
kafka_sasl_mechanism: {{ $kafka.saslMechanism }}
{{- if eq $kafka.saslMechanism "OAUTHBEARER" }}
kafka_sasl_tokenfile: /etc/cartwright/kafka/token
{{- else }}
kafka_sasl_username: {{ .who }}
{{- end }}
{{- end }}
{{- if $kafka.caSecret }}
kafka_ssl_cafile: /etc/cartwright/kafka/ca.crt
{{- end }}
{{- if .login.kafkaCertificateSecret }}
kafka_ssl_certfile: /etc/cartwright/kafka/tls.crt
kafka_ssl_keyfile: /etc/cartwright/kafka/tls.key
{{- end }}
{{- with $kafka.topicPrefix }}
topic_prefix: {{ . | quote }}
{{- end }}
{{- end }}

{{/* Whether that is a password. */}}
{{- define "cartwright.kafkaPassword" -}}
{{- if and (hasPrefix "SASL_" .Values.kafka.securityProtocol) (ne .Values.kafka.saslMechanism "OAUTHBEARER") }}yes{{ end -}}
{{- end }}

{{/* The files by which it comes to the brokers and knows them, each Secret as somebody else renews it. */}}
{{- define "cartwright.kafkaFiles" -}}
{{- $kafka := .root.Values.kafka -}}
{{- include "cartwright.filesOf" (dict "name" $kafka.caSecret "keys" (list "ca.crt")) }}
{{- if and (hasPrefix "SASL_" $kafka.securityProtocol) (eq $kafka.saslMechanism "OAUTHBEARER") }}
{{- include "cartwright.filesOf" (dict "name" (required (printf "%s.kafkaTokenSecret: kafka.saslMechanism is OAUTHBEARER" .place) .login.kafkaTokenSecret) "keys" (list "token")) }}
{{- end }}
{{- include "cartwright.filesOf" (dict "name" .login.kafkaCertificateSecret "keys" (list "tls.crt" "tls.key")) }}
{{- end }}

{{/* The same of the databases. */}}
{{- define "cartwright.postgresFiles" -}}
{{- include "cartwright.filesOf" (dict "name" .root.Values.postgres.caSecret "keys" (list "ca.crt")) }}
{{- include "cartwright.filesOf" (dict "name" (index .root.Values.services .service).postgresCertificateSecret "keys" (list "tls.crt" "tls.key")) }}
{{- end }}

{{/* The way to the payment provider, in the variables that every program reads. */}}
{{- define "cartwright.providerWay" -}}
{{- with .Values.provider }}
{{- if .proxySecret }}
- name: HTTPS_PROXY
  valueFrom:
    secretKeyRef: {name: {{ .proxySecret }}, key: proxy}
{{- else if .proxy }}
- name: HTTPS_PROXY
  value: {{ .proxy | quote }}
{{- end }}
{{- if .noProxy }}
- name: NO_PROXY
  value: {{ .noProxy | quote }}
{{- end }}
{{- if .caSecret }}
- name: SSL_CERT_FILE
  value: /etc/cartwright/provider/ca.crt
{{- end }}
{{- end }}
{{- end }}

{{- define "cartwright.providerFiles" -}}
{{- include "cartwright.filesOf" (dict "name" .Values.provider.caSecret "keys" (list "ca.crt")) }}
{{- end }}

{{- define "cartwright.filesOf" }}
{{- if .name }}
- secret:
    name: {{ .name }}
    items:
      {{- range .keys }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end }}
{{- end }}

{{- define "cartwright.projected" }}
{{- if .files }}
- name: {{ .name }}
  projected:
    defaultMode: 0440
    sources: {{- .files | nindent 6 }}
{{- end }}
{{- end }}

{{- define "cartwright.environment" -}}
{{- $values := .root.Values -}}
{{- $ports := .declared.ports -}}
{{- $identity := (include "cartwright.declared" .root | fromYaml).services.identity -}}
{{- $service := index $values.services .service }}
{{- $given := merge (include "cartwright.kafkaLogin" (dict "root" .root "who" .service "login" $service) | fromYaml) (dict
  "issuer" $values.issuer
  "issuer_root_public_key" $values.issuerRootPublicKey
  "jwks_url" ($values.jwksUrl | default (printf "http://%s-identity:%v/.well-known/jwks.json" (include "cartwright.main" .root) $identity.ports.api))
  "http_host" $values.network.listen
  "http_port" (toString (index $ports .kind))
  "drain_seconds" (toString $values.drain.seconds)
) -}}
{{- if eq .kind "api" }}
{{- $_ := set $given "ops_host" $values.network.listen }}
{{- $_ := set $given "ops_port" (toString $ports.ops) }}
{{- $_ := set $given "trusted_proxies" $values.network.trustedProxies }}
{{- end }}
{{- if $values.cell.name }}
{{- $_ := set $given "cell" $values.cell.name }}
{{- end }}
{{- if has "console_urls" .declared.given }}
{{- $_ := set $given "console_urls" ($values.consoleUrls | default (printf "%s/console/" (trimSuffix "/" $values.issuer))) }}
{{- end }}
{{- $chosen := mergeOverwrite (dict) (deepCopy $values.settings) }}
{{- range $more := list $service.settings (index $service .kind).settings }}
{{- range $key, $value := $more }}{{ if not (kindIs "invalid" $value) }}{{ $_ := set $chosen $key $value }}{{ end }}{{ end }}
{{- end }}
{{- include "cartwright.settings" $given }}
{{- include "cartwright.settings" $chosen }}
{{- range splitList " " (include "cartwright.keys" .) }}
- name: CARTWRIGHT_{{ . | replace "-" "_" | upper }}_FILE
  value: /etc/cartwright/secrets/{{ . }}
{{- end }}
{{- if eq .service "payments" }}
{{- include "cartwright.providerWay" .root }}
{{- end }}
{{- with $values.monitoring.traces }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end }}
