{{/* Names, labels and images: one place for each. */}}

{{/* Kubernetes cuts what the names of a ReplicaSet's pods begin with to 58 characters: 37, -operator and a hash. */}}
{{- define "ropewalk.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "ropewalk" .Release.Name -}}
{{- .Release.Name | trunc 37 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-ropewalk" .Release.Name | trunc 37 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ropewalk.operatorName" -}}
{{ include "ropewalk.fullname" . }}-operator
{{- end -}}

{{- define "ropewalk.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "ropewalk.operatorName" .) -}}
{{- end -}}

{{/* Labels of all objects but pods and those of `helm test`. */}}
{{- define "ropewalk.labels" -}}
{{ include "ropewalk.operatorSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ropewalk
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/*
Metadata of an object: (dict "root" $ "name" name), and what it has of "namespace" ("" for objects of the cluster; without it,
the release's), "labels" and "annotations", which go before those that all objects get, also where they are empty (`merge`
takes empty for none).
*/}}
{{- define "ropewalk.metadata" -}}
{{- $namespace := hasKey . "namespace" | ternary .namespace .root.Release.Namespace -}}
name: {{ .name }}
{{- with $namespace }}
namespace: {{ . | quote }}
{{- end }}
labels:
  {{- mergeOverwrite (include "ropewalk.labels" .root | fromYaml) .root.Values.commonLabels (.labels | default dict) | toYaml | nindent 2 }}
{{- with mergeOverwrite (dict) .root.Values.commonAnnotations (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* MCP servers let in pods with this name: the operator asks them for their tools. */}}
{{- define "ropewalk.operatorSelector" -}}
app.kubernetes.io/name: ropewalk-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* An image: (list $ "name" override). */}}
{{- define "ropewalk.image" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $image := $root.Values.image -}}
{{- $digest := get $image.digests $name | default "" -}}
{{- $usual := printf "%s/%s:%s" $image.registry $name ($image.tag | default $root.Chart.AppVersion) -}}
{{- index . 2 | default (empty $digest | ternary $usual (printf "%s@%s" $usual $digest)) -}}
{{- end -}}

{{/* Where `helm test` works: a namespace that the operator watches. */}}
{{- define "ropewalk.testNamespace" -}}
{{- if or (not .Values.watchNamespaces) (has .Release.Namespace .Values.watchNamespaces) -}}
{{ .Release.Namespace }}
{{- else -}}
{{ first .Values.watchNamespaces }}
{{- end -}}
{{- end -}}

{{/* Security settings of the operator's pod and of those of `helm test`. */}}
{{- define "ropewalk.podSecurityContext" -}}
{{- $context := .Values.operator.podSecurityContext | default dict -}}
{{- .Values.fixedUser | ternary $context (omit $context "runAsUser" "runAsGroup" "fsGroup") | toYaml -}}
{{- end -}}
