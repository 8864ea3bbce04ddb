{{- define "reviewmesh.matchers" -}}
{{- default (printf "namespace=%q" .Release.Namespace) .Values.scaling.prometheus.matchers -}}
{{- end -}}

{{/*
root, group (of consumers), reads, arrives: reviews per second that have to be done. What arrives, and
what waits spread over the seconds allowed. Without a measurement of what waits it is nothing at all;
before the first review nothing was written, which is no arrivals.
*/}}
{{- define "reviewmesh.demand" -}}
{{- $scaling := .root.Values.scaling -}}
{{- $matchers := include "reviewmesh.matchers" .root -}}
((sum(rate(reviewmesh_records_written_total{topic="{{ .arrives }}",{{ $matchers }}}[{{ $scaling.rateWindow }}])) or vector(0)) + sum(reviewmesh_backlog_records{group="{{ .root.Values.prefix }}{{ .group }}",topic="{{ .root.Values.prefix }}{{ .reads }}",{{ $matchers }}}) / {{ include "reviewmesh.value" $scaling.backlogSeconds }})
{{- end -}}

{{/* root: holds only while the lag service measures. */}}
{{- define "reviewmesh.measured" -}}
and on() (max(reviewmesh_lag_measurement_age_seconds{{ "{" }}{{ include "reviewmesh.matchers" . }}{{ "}" }}) < 60)
{{- end -}}

{{/* root, name, own, kind, query: the ScaledObject of a workload by a query that tells replicas. */}}
{{- define "reviewmesh.scaledObject" -}}
{{- $root := .root -}}{{- $scaling := .root.Values.scaling -}}
{{- $component := .component -}}{{- $own := .own -}}
{{- $calm := max (ceil $scaling.scaleDownSeconds) (ceil (mulf 1.5 (default 0 $own.startSeconds))) -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ include "reviewmesh.fullname" $root }}-{{ $component }}
  labels:
    {{- include "reviewmesh.labels" (dict "root" $root "component" $component) | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: {{ .kind }}
    name: {{ include "reviewmesh.fullname" $root }}-{{ $component }}
  pollingInterval: {{ $scaling.pollingInterval }}
  cooldownPeriod: {{ $calm }}
  minReplicaCount: {{ $own.scaling.minReplicas }}
  maxReplicaCount: {{ .most }}
  # Without an answer there are not fewer than there are.
  fallback:
    failureThreshold: {{ $scaling.failureThreshold }}
    replicas: {{ min (int .most) (max (int $own.replicas) (int $own.scaling.minReplicas)) }}
    behavior: currentReplicasIfHigher
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        # Longer than a start: what is taken away too early is missing for as long.
        scaleDown:
          stabilizationWindowSeconds: {{ min 3600 $calm }}
          policies: [{type: Pods, value: 1, periodSeconds: 60}]
        scaleUp:
          stabilizationWindowSeconds: 30
          policies: [{type: Percent, value: 100, periodSeconds: 60}, {type: Pods, value: 4, periodSeconds: 60}]
  triggers:
    {{- range $name, $query := .queries }}
    - type: prometheus
      name: {{ $name }}
      metricType: AverageValue
      metadata:
        serverAddress: {{ required "scaling.prometheus.serverAddress is required" $scaling.prometheus.serverAddress | quote }}
        # The replicas that there should be.
        query: >-
          {{ $query }}
        threshold: "1"
        # No series is an error, not zero work.
        ignoreNullValues: "false"
        {{- with $scaling.prometheus.authentication.modes }}
        authModes: {{ . | quote }}
        {{- end }}
      {{- with $scaling.prometheus.authentication.name }}
      authenticationRef: {name: {{ . }}}
      {{- end }}
    {{- end }}
{{- end -}}

{{/* root, task: reviews per second of the groups whose number stays. */}}
{{- define "reviewmesh.fixedRate" -}}
{{- $sum := 0.0 -}}
{{- range fromYaml (include "reviewmesh.groups" .root) -}}
  {{- if and (eq .role "primary") (has $.task .tasks) (not .scaling.enabled) -}}
    {{- $sum = addf $sum (mulf .replicas (default 0 (get .scaling.reviewsPerSecond $.task)) $.root.Values.scaling.targetUtilisation) -}}
  {{- end -}}
{{- end -}}
{{ include "reviewmesh.value" $sum }}
{{- end -}}

{{/* root, task: reviews per second of the groups that scale, all of them at their largest. */}}
{{- define "reviewmesh.largestRate" -}}
{{- $sum := 0.0 -}}
{{- range fromYaml (include "reviewmesh.groups" .root) -}}
  {{- if and (eq .role $.role) (has $.task .tasks) .scaling.enabled -}}
    {{- $sum = addf $sum (mulf .scaling.maxReplicas (get .scaling.reviewsPerSecond $.task)) -}}
  {{- end -}}
{{- end -}}
{{ include "reviewmesh.value" $sum }}
{{- end -}}

{{/*
root, group: the replicas that a worker group should have, as PromQL. Each group takes its part of a
task by what it can do at its largest, after what groups of a fixed size do. A candidate gets the part
that its rollout gives it.
*/}}
{{- define "reviewmesh.workersWanted" -}}
{{- $root := .root -}}{{- $group := .group -}}
{{- $parts := list -}}
{{- range $task := $group.tasks -}}
  {{- $rate := get $group.scaling.reviewsPerSecond $task -}}
  {{- $demand := include "reviewmesh.demand" (dict "root" $root "group" (printf "reviewmesh-enricher-%s" $task) "reads" "reviews.accepted" "arrives" "reviews.accepted") -}}
  {{- if eq $group.role "candidate" -}}
    {{- $demand = printf "%s * max(reviewmesh_rollout_share_ratio{task=%q,%s})" $demand $task (include "reviewmesh.matchers" $root) -}}
  {{- else -}}
    {{- $fixed := include "reviewmesh.fixedRate" (dict "root" $root "task" $task) -}}
    {{- if ne $fixed "0" -}}
      {{- $demand = printf "clamp_min(%s - %s, 0)" $demand $fixed -}}
    {{- end -}}
  {{- end -}}
  {{- $largest := include "reviewmesh.largestRate" (dict "root" $root "task" $task "role" $group.role) | float64 -}}
  {{- $share := divf (mulf $group.scaling.maxReplicas $rate) $largest -}}
  {{- $each := divf (mulf $rate $root.Values.scaling.targetUtilisation) $share -}}
  {{- $parts = append $parts (printf "%s / %s" $demand (include "reviewmesh.value" (round $each 6))) -}}
{{- end -}}
({{ join " + " $parts }}) {{ include "reviewmesh.measured" $root }}
{{- end -}}
