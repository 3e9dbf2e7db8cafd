{{/*
The MCP servers that the values switch on: an object of the keys of mcpServers. None is made in an install that brings
their CRD itself. Helm looks up every kind of a release before it makes the first object, so it would refuse the whole
install; and a hook is no way out, as Helm does not wait for the CRD before it runs one, and never removes what it made.
Without a cluster (helm template) they are always there: only a cluster knows a Namespace by its group, version and kind.
*/}}
{{- define "ropewalk.mcpServers" -}}
{{- $on := dict -}}
{{- $keys := dict -}}
{{- range $key, $server := .Values.mcpServers -}}
{{- if $server.enabled -}}
{{- with get $keys $server.name -}}
{{- fail (printf "mcpServers.%s.name and mcpServers.%s.name are both %s; give each server a name of its own" . $key $server.name) -}}
{{- end -}}
{{- $_ := set $keys $server.name $key -}}
{{- $_ := set $on $key $server -}}
{{- end -}}
{{- end -}}
{{- if and $on .Values.watchNamespaces (not (has .Release.Namespace .Values.watchNamespaces)) -}}
{{- fail (printf "mcpServers are made in the release's namespace %s, which watchNamespaces does not name; add it there, or switch them off" .Release.Namespace) -}}
{{- end -}}
{{- with $on.prometheus -}}
{{- if not .url -}}
{{- fail "mcpServers.prometheus.url is empty; set it to where your Prometheus answers, such as http://prometheus.monitoring.svc:9090" -}}
{{- end -}}
{{- end -}}
{{- with $on.kubernetes -}}
{{- if and .namespaces (eq .scope "cluster") -}}
{{- fail (printf "mcpServers.kubernetes.scope is cluster, which sees more than its namespaces %s; empty these, or set scope to namespaced" (join ", " .namespaces)) -}}
{{- end -}}
{{- if and $.Values.rbac.create $.Values.watchNamespaces (eq .scope "cluster") -}}
{{- fail "mcpServers.kubernetes.scope is cluster, which needs a ClusterRole, and with watchNamespaces the chart makes none; set scope to namespaced, or rbac.create to false and give the right yourself" -}}
{{- end -}}
{{- end -}}
{{- toJson $on -}}
{{- end -}}

{{- define "ropewalk.mcpServersAreUnknown" -}}
{{- $known := .Capabilities.APIVersions -}}
{{- if and ($known.Has "v1/Namespace") (not ($known.Has "ropewalk.dev/v1alpha1/MCPServer")) }}true{{ end -}}
{{- end -}}

{{/* What is wrong with the values is told in an install that makes none of them, too. */}}
{{- define "ropewalk.mcpServersToMake" -}}
{{- $on := include "ropewalk.mcpServers" . -}}
{{- include "ropewalk.mcpServersAreUnknown" . | empty | ternary $on "{}" -}}
{{- end -}}

{{/*
An MCPServer: (dict "root" $ "server" values "image" name "env" list "egress" list "serviceAccount" name "stdio" bool).
Ropewalk lets its pods out to DNS and to the public internet's ports 80 and 443, and to what `egress` names.
*/}}
{{- define "ropewalk.mcpServer" -}}
{{- $root := .root -}}
{{- $image := include "ropewalk.image" (list $root .image .server.image) -}}
{{- $pod := deepCopy .server.pod -}}
{{- with .env -}}
{{- $_ := set $pod "env" (concat . ($pod.env | default list)) -}}
{{- end -}}
{{- with .serviceAccount -}}
{{- $_ := set $pod "serviceAccountName" . -}}
{{- end -}}
{{- if not .stdio -}}
{{- $_ := set $pod "labels" (mergeOverwrite (dict "monitoring.ropewalk.dev/scrape" "true") ($pod.labels | default dict)) -}}
{{- end -}}
{{- if and $root.Values.image.pullSecrets (not $pod.imagePullSecrets) -}}
{{- $_ := set $pod "imagePullSecrets" $root.Values.image.pullSecrets -}}
{{- end -}}
apiVersion: ropewalk.dev/v1alpha1
kind: MCPServer
metadata:
  {{- include "ropewalk.metadata" (dict "root" $root "name" (.server.name | quote)) | nindent 2 }}
spec:
  {{- if .stdio }}
  stdio:
    image: {{ $image }}
    command:
    - /opt/ropewalk/bin/ropewalk-mcp
    args:
    - --stdio
  {{- else }}
  image: {{ $image }}
  {{- end }}
  replicas: {{ .server.replicas | int }}
  {{- with .egress }}
  networkPolicy:
    extraEgress:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pod }}
  pod:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* An MCPServer that asks the web, or a mirror: (dict "root" $ "server" values "image" name "variable" name of the mirror's). */}}
{{- define "ropewalk.mcpServerOfTheWeb" -}}
{{- $mirror := dict -}}
{{- with .server.baseURL -}}
{{- $env := list (dict "name" $.variable "value" .) -}}
{{- $mirror = dict "env" $env "egress" (include "ropewalk.egressTo" . | fromJsonArray) -}}
{{- end -}}
{{- include "ropewalk.mcpServer" (merge $mirror .) -}}
{{- end -}}

{{/*
Rules that let a pod out to the host of a URL, as a JSON list. Policies know no names. So a Service is its
namespace, on any port, as its pods may listen on another one than it does; any other host is everyone, on the URL's port.
*/}}
{{- define "ropewalk.egressTo" -}}
{{- $url := urlParse . -}}
{{- $host := $url.hostname -}}
{{- $labels := splitList "." $host -}}
{{- $port := last (splitList ":" $url.host) -}}
{{- if not (regexMatch "^[0-9]+$" $port) -}}
{{- $port = ternary "443" "80" (eq $url.scheme "https") -}}
{{- end -}}
{{- $anyone := dict "ports" (list (dict "port" (int $port) "protocol" "TCP")) -}}
{{- if contains ":" $host -}}
{{- toJson (list $anyone) -}}
{{- else if eq (len $labels) 1 -}}
{{- toJson (list (dict "to" (list (dict "podSelector" (dict))))) -}}
{{- else -}}
{{- $namespace := dict "to" (list (dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" (index $labels 1))))) -}}
{{- if eq (len $labels) 2 -}}
{{- toJson (list $namespace $anyone) -}}
{{- else if eq (index $labels 2) "svc" -}}
{{- toJson (list $namespace) -}}
{{- else -}}
{{- toJson (list $anyone) -}}
{{- end -}}
{{- end -}}
{{- end -}}
