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

{{- define "cartwright.environment" -}}
{{- $values := .root.Values -}}
{{- $name := include "cartwright.name" .root -}}
{{- $ports := .declared.ports -}}
{{- $identity := (include "cartwright.declared" .root | fromYaml).services.identity -}}
{{- $given := dict
  "kafka_bootstrap_servers" $values.kafka.bootstrapServers
  "kafka_security_protocol" $values.kafka.securityProtocol
  "issuer" $values.issuer
  "issuer_root_public_key" $values.issuerRootPublicKey
  "jwks_url" ($values.jwksUrl | default (printf "http://%s-identity:%v/.well-known/jwks.json" $name $identity.ports.api))
  "http_host" $values.network.listen
  "http_port" (toString (index $ports .kind))
  "drain_seconds" (toString $values.drain.seconds)
-}}
{{- if hasPrefix "SASL_" $values.kafka.securityProtocol }}
{{- $_ := set $given "kafka_sasl_mechanism" $values.kafka.saslMechanism }}
{{- $_ := set $given "kafka_sasl_username" .service }}
{{- end }}
{{- with $values.kafka.caSecret }}{{ $_ := set $given "kafka_ssl_cafile" "/etc/cartwright/kafka/ca.crt" }}{{ end }}
{{- with $values.kafka.topicPrefix }}{{ $_ := set $given "topic_prefix" . }}{{ end }}
{{- if eq .kind "api" }}
{{- $_ := set $given "ops_host" $values.network.listen }}
{{- $_ := set $given "ops_port" (toString $ports.ops) }}
{{- $_ := set $given "trusted_proxies" $values.network.trustedProxies }}
{{- end }}
{{- if has "console_urls" .declared.given }}
{{- $_ := set $given "console_urls" ($values.consoleUrls | default (printf "%s/console/" (trimSuffix "/" $values.issuer))) }}
{{- end }}
{{- $service := index $values.services .service }}
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
{{- with $values.monitoring.traces }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end }}
