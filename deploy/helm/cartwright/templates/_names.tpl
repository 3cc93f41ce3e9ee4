{{/* How things are called, and what is known of the services. */}}

{{- define "cartwright.name" -}}
{{- include "cartwright.nameOf" (dict "chart" .Chart.Name "release" .Release.Name) -}}
{{- end }}

{{- define "cartwright.nameOf" -}}
{{- if contains .chart .release }}{{ .release | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .release .chart | trunc 40 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{/* What the main release is called, of which this one may be a cell. */}}
{{- define "cartwright.main" -}}
{{- include "cartwright.nameOf" (dict "chart" .Chart.Name "release" (include "cartwright.mainRelease" .)) -}}
{{- end }}

{{- define "cartwright.mainRelease" -}}
{{- if .Values.cell.name }}{{ required "cell.of: the release that this one is a cell of" .Values.cell.of }}{{ else }}{{ .Release.Name }}{{ end -}}
{{- end }}

{{/* What of the services is here: of a cell, those that each cell has databases of. */}}
{{- define "cartwright.here" -}}
{{- $cell := .Values.cell.name -}}
{{- range $service, $known := (include "cartwright.declared" . | fromYaml).services }}
{{- if or $known.is_in_cells (not $cell) }}
{{ $service }}: {{ toJson $known }}
{{- end }}
{{- end }}
{{- end }}

{{/* The kinds of processes that are here, with spaces between. */}}
{{- define "cartwright.kinds" -}}
{{ if not .Values.cell.name }}api {{ end }}worker
{{- end }}

{{- define "cartwright.declared" -}}
{{ .Files.Get "files/declared.yaml" }}
{{- end }}

{{/* Labels by which things are chosen: they never change. */}}
{{- define "cartwright.chosen" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .service }}
cartwright/service: {{ . }}
{{- end }}
{{- end }}

{{- define "cartwright.labels" -}}
{{ include "cartwright.chosen" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: cartwright
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "cartwright.image" -}}
{{- if .image.digest }}{{ .image.repository }}@{{ .image.digest }}{{ else }}{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{- define "cartwright.secret" -}}
{{- $service := index .root.Values.services .service -}}
{{- $service.secret | default (printf "%s-%s" (include "cartwright.name" .root) .service) -}}
{{- end }}

{{- define "cartwright.ownerSecret" -}}
{{- $service := index .root.Values.services .service -}}
{{- $service.ownerSecret | default (printf "%s-%s-owner" (include "cartwright.name" .root) .service) -}}
{{- end }}

{{- define "cartwright.invariantsSecret" -}}
{{- .Values.invariants.secret | default (printf "%s-invariants" (include "cartwright.name" .)) -}}
{{- end }}

{{/* The keys of it. */}}
{{- define "cartwright.invariantsKeys" -}}
platform-client-secret stripe-api-key{{ if include "cartwright.kafkaPassword" . }} kafka-sasl-password{{ end }}
{{- end }}

{{/* The keys of its Secret that a process is given (`any`: one or another is), with spaces between: those it needs, and not one more. */}}
{{- define "cartwright.keys" -}}
{{- $secrets := .declared.secrets -}}
{{- $keys := $secrets.required -}}
{{- if has .kind (list "worker" "any") }}{{ $keys = concat $keys $secrets.worker }}{{ end -}}
{{- if include "cartwright.kafkaPassword" .root }}{{ $keys = concat $keys $secrets.sasl }}{{ end -}}
{{- if and (has .kind (list "api" "any")) .declared.is_in_cells .root.Values.cells }}{{ $keys = append $keys "cell-database-urls" }}{{ end -}}
{{- $keys = concat $keys (index .root.Values.services .service).alsoSecrets -}}
{{- $keys | uniq | join " " -}}
{{- end }}
