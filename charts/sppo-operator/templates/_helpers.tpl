{{- define "sppo-operator.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- default (replace "." "-" $name) .Values.fullnameOverride | trunc 50 | trimAll "-" -}}
{{- end -}}

{{- define "sppo-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- /* Helm adds app.kubernetes.io/managed-by itself; helm.sh/chart would change every object with every version of the chart. */ -}}
{{- define "sppo-operator.standardLabels" -}}
{{ include "sppo-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: {{ .Chart.Name }}
{{- end -}}

{{- /* Of (list root further): labels of an object that has further ones of its own. */ -}}
{{- define "sppo-operator.labelsAnd" -}}
{{- $root := index . 0 -}}
{{- merge (include "sppo-operator.standardLabels" $root | fromYaml) (index . 1) $root.Values.extraLabels | toYaml -}}
{{- end -}}

{{- define "sppo-operator.labels" -}}
{{ include "sppo-operator.labelsAnd" (list . dict) }}
{{- end -}}

{{- /* Of (list root further). */ -}}
{{- define "sppo-operator.metadataAnd" -}}
{{- $root := index . 0 -}}
name: {{ include "sppo-operator.fullname" $root | quote }}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- include "sppo-operator.labelsAnd" . | nindent 2 }}
{{- end -}}

{{- define "sppo-operator.metadata" -}}
{{ include "sppo-operator.metadataAnd" (list . dict) }}
{{- end -}}

{{- define "sppo-operator.serviceAccount" -}}
{{ default (include "sppo-operator.fullname" .) .Values.serviceAccount.name }}
{{- end -}}

{{- define "sppo-operator.subjects" -}}
- kind: ServiceAccount
  name: {{ include "sppo-operator.serviceAccount" . | quote }}
  namespace: {{ .Release.Namespace | quote }}
{{- end -}}

{{- /* Of (list root terms): lets each term select the operator's pods, unless it has a labelSelector. It prints nothing. */ -}}
{{- define "sppo-operator.select" -}}
{{- $root := index . 0 -}}
{{- range $term := index . 1 -}}
{{- if not (hasKey $term "labelSelector") -}}
{{- $_ := set $term "labelSelector" (dict "matchLabels" (include "sppo-operator.selectorLabels" $root | fromYaml)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Of (list root image). */ -}}
{{- define "sppo-operator.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- /* Of a monitor's values. honorLabels: a series of a run has the run's namespace, which the scraped pod's must not replace. */ -}}
{{- define "sppo-operator.endpoint" -}}
port: http
path: /metrics
interval: {{ .interval }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
honorLabels: true
{{- end -}}

{{- /* The namespaces of watchNamespace, separated by commas. */ -}}
{{- define "sppo-operator.namespaces" -}}
{{- $names := list -}}
{{- range splitList "," .Values.watchNamespace -}}
{{- $names = append $names (ternary $.Release.Namespace . (eq . "release")) -}}
{{- end -}}
{{- $names | uniq | join "," -}}
{{- end -}}
