{{/* The peer that the operator lets in to read the metrics of MCP servers, as JSON: an empty object means nobody. */}}
{{- define "ropewalk.scrapers" -}}
{{- $peer := dict -}}
{{- range $selector, $labels := .Values.monitoring.scrapers -}}
{{- if $labels -}}
{{- $_ := set $peer $selector $labels -}}
{{- end -}}
{{- end -}}
{{- toJson $peer -}}
{{- end -}}
