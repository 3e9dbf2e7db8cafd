{{/* Metadata of an object that lives while `helm test` runs: (list $ "name" weight). Lower weights come first. */}}
{{- define "ropewalk.testMetadata" -}}
{{- $root := index . 0 -}}
{{- $hook := dict "helm.sh/hook" "test" "helm.sh/hook-weight" (index . 2 | toString) "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" -}}
{{- /* `helm test --logs` looks for the logs of every hook, as if all were pods, and after they are gone. This prints the pod's. */ -}}
{{- $_ := set $hook "helm.sh/hook-output-log-policy" "hook-succeeded,hook-failed" -}}
name: ropewalk-test-{{ index . 1 }}
namespace: {{ include "ropewalk.testNamespace" $root | quote }}
labels:
  {{- merge (dict "app.kubernetes.io/part-of" "ropewalk") $root.Values.commonLabels | toYaml | nindent 2 }}
annotations:
  {{- merge $hook $root.Values.commonAnnotations | toYaml | nindent 2 }}
{{- end -}}
