{{/* root, service: longer than it takes to finish, and for those that call, than the longest call. */}}
{{- define "reviewmesh.gracePeriod" -}}
{{- $seconds := .service.graceSeconds -}}
{{- if .service.asks -}}
  {{- range fromYaml (include "reviewmesh.groups" .root) -}}
    {{- $seconds = max (ceil $seconds) (ceil .longestCallSeconds) -}}
  {{- end -}}
{{- end -}}
{{- add (ceil $seconds) 15 -}}
{{- end -}}
