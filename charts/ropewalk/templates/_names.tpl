{{/* Names, labels and images: one place for each. */}}

{{- define "ropewalk.fullname" -}}
{{- if contains "ropewalk" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-ropewalk" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ropewalk.operatorName" -}}
{{ include "ropewalk.fullname" . }}-operator
{{- end -}}

{{- define "ropewalk.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "ropewalk.operatorName" .) -}}
{{- end -}}

{{/* Labels of all objects but pods. */}}
{{- define "ropewalk.labels" -}}
{{ include "ropewalk.operatorSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ropewalk
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* MCP servers let in pods with this name: the operator asks them for their tools. */}}
{{- define "ropewalk.operatorSelector" -}}
app.kubernetes.io/name: ropewalk-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* An image: (list $ "name" override). */}}
{{- define "ropewalk.image" -}}
{{- $root := index . 0 -}}
{{- $image := $root.Values.image -}}
{{- index . 2 | default (printf "%s/%s:%s" $image.registry (index . 1) ($image.tag | default $root.Chart.AppVersion)) -}}
{{- end -}}

{{/* Where `helm test` works: a namespace that the operator watches. */}}
{{- define "ropewalk.testNamespace" -}}
{{- if or (not .Values.watchNamespaces) (has .Release.Namespace .Values.watchNamespaces) -}}
{{ .Release.Namespace }}
{{- else -}}
{{ first .Values.watchNamespaces }}
{{- end -}}
{{- end -}}

{{/* Security settings that the restricted Pod Security Standard demands. */}}
{{- define "ropewalk.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "ropewalk.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
  - ALL
{{- end -}}
