{{/*
The services of the mesh. job: the job that the rules in observability/ know it by; asks: it calls
workers; single: a second one would do harm; group: its consumer group; arrives: the topic whose
records are its work, as intake or the enrichers count what they write.
*/}}
{{- define "reviewmesh.services" -}}
intake: {module: reviewmesh.intake, image: service, job: service, registry: true, group: reviewmesh-intake, reads: reviews.raw, arrives: reviews.accepted}
{{- range list "ner" "topic" "sentiment" }}
enricher-{{ . }}: {module: reviewmesh.enrich, task: {{ . }}, image: service, job: service, registry: true, asks: true, group: reviewmesh-enricher-{{ . }}, reads: reviews.accepted, arrives: reviews.accepted}
{{- end }}
joiner: {module: reviewmesh.join, image: service, job: service, registry: true, group: reviewmesh-joiner, reads: reviews.accepted, arrives: reviews.accepted}
insights: {module: reviewmesh.insights, image: insights, job: insights, registry: true, group: reviewmesh-insights, reads: reviews.enriched, arrives: reviews.enriched}
lag: {module: reviewmesh.lag, image: service, job: lag, registry: false, single: true}
judge: {module: reviewmesh.judge, image: service, job: judge, registry: true, asks: true, single: true}
tracer: {module: reviewmesh.trace, image: service, job: tracer, registry: true, group: reviewmesh-tracer, reads: reviews.enriched, arrives: reviews.enriched}
{{- end -}}

{{/* Those that run, each with all of its values. */}}
{{- define "reviewmesh.running" -}}
{{- $values := .Values -}}
{{- $running := dict -}}
{{- range $name, $service := fromYaml (include "reviewmesh.services" .) -}}
  {{- $own := mergeOverwrite (deepCopy $values.serviceDefaults) (deepCopy $service) (deepCopy (default dict (get $values.services $name))) -}}
  {{- if dig "enabled" true $own -}}
    {{- $_ := set $running $name $own -}}
  {{- end -}}
{{- end -}}
{{ toYaml $running }}
{{- end -}}

{{/* The worker groups that run, each with all of its values. */}}
{{- define "reviewmesh.groups" -}}
{{- $values := .Values -}}
{{- $groups := dict -}}
{{- range $name, $group := $values.workers -}}
  {{- $own := mergeOverwrite (deepCopy $values.workerDefaults) (deepCopy (default dict $group)) -}}
  {{- if $own.enabled -}}
    {{- $image := ternary "workerVllm" "worker" (or (eq $own.engine "vllm") (gt (int $own.gpu.count) 0)) -}}
    {{- $_ := set $own "image" (default $image $own.image) -}}
    {{- $_ := set $groups $name $own -}}
  {{- end -}}
{{- end -}}
{{ toYaml $groups }}
{{- end -}}

{{/* root, role, task: addresses of the workers, with commas. */}}
{{- define "reviewmesh.addresses" -}}
{{- $root := .root -}}{{- $role := .role -}}{{- $task := .task -}}
{{- $addresses := list -}}
{{- range $name, $group := fromYaml (include "reviewmesh.groups" $root) -}}
  {{- if and (eq $group.role $role) (has $task $group.tasks) -}}
    {{- $host := include "reviewmesh.host" (dict "root" $root "component" (printf "worker-%s" $name)) -}}
    {{- $region := ternary (printf "%s@" $group.region) "" (eq $role "fallback") -}}
    {{- $addresses = append $addresses (printf "%s%s:50051" $region $host) -}}
  {{- end -}}
{{- end -}}
{{- concat $addresses (index $root.Values.externalWorkers $role $task) | join "," -}}
{{- end -}}

{{/* Whether the enrichers of every task may ask for names to mask. */}}
{{- define "reviewmesh.asksForNames" -}}
{{- if .Values.policy }}true{{ end -}}
{{- end -}}

{{/* root, group: the components that call it, as a list. */}}
{{- define "reviewmesh.callers" -}}
{{- $callers := list -}}
{{- range list "ner" "topic" "sentiment" -}}
  {{- $names := and (has "ner" $.group.tasks) (eq $.group.role "primary") (include "reviewmesh.asksForNames" $.root) -}}
  {{- if or (has . $.group.tasks) $names -}}
    {{- $callers = append $callers (printf "enricher-%s" .) -}}
  {{- end -}}
{{- end -}}
{{- if and (ne .group.role "fallback") (hasKey (fromYaml (include "reviewmesh.running" .root)) "judge") -}}
  {{- $callers = append $callers "judge" -}}
{{- end -}}
{{ toYaml $callers }}
{{- end -}}

{{/* How many partitions the mesh reads, from the contracts. */}}
{{- define "reviewmesh.partitions" -}}
{{- (.Files.Get "files/topics.yaml" | fromYaml).partitions -}}
{{- end -}}
