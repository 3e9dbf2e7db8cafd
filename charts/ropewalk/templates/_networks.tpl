{{/* A rule that lets a pod out to the API server, as a JSON list: policies see its own address and port, behind those of its Service. */}}
{{- define "ropewalk.egressToAPIServer" -}}
{{- $ports := list -}}
{{- range .ports -}}
{{- $ports = append $ports (dict "port" (int .) "protocol" "TCP") -}}
{{- end -}}
{{- $rule := dict "ports" $ports -}}
{{- with .cidrs -}}
{{- $to := list -}}
{{- range . -}}
{{- $to = append $to (dict "ipBlock" (dict "cidr" .)) -}}
{{- end -}}
{{- $_ := set $rule "to" $to -}}
{{- end -}}
{{- toJson (list $rule) -}}
{{- end -}}
