{{/* root, own: what a pod has beside its containers and volumes. */}}
{{- define "reviewmesh.podSettings" -}}
serviceAccountName: {{ include "reviewmesh.serviceAccount" .root }}
# Nothing here asks the API server.
automountServiceAccountToken: false
# Kubernetes would set REVIEWMESH_… for every Service of the namespace.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .own.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* root, component, revision: the label by which an update's new pods are spread by themselves */}}
{{- define "reviewmesh.spread" -}}
{{- $selector := include "reviewmesh.selector" . -}}
{{- $revision := .revision -}}
{{- with .root.Values.topologySpread }}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml . | nindent 4 | trim }}
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
    matchLabelKeys: [{{ $revision }}]
  {{- end }}
{{- end }}
{{- end -}}

{{- define "reviewmesh.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* A process that waits for a broker or a model is well: only /readyz says that it waits. */}}
{{- define "reviewmesh.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 15
  timeoutSeconds: 5
  failureThreshold: 4
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/* root, component, registry: volumes with the files of Kafka and the registry. */}}
{{- define "reviewmesh.clientVolumes" -}}
{{- $kafka := .root.Values.kafka -}}{{- $registry := .root.Values.registry -}}
{{- $auth := $kafka.auth -}}
{{- if or $kafka.tls.ca.secret (ne $auth.type "none") }}
- name: kafka
  projected:
    defaultMode: 0440
    sources:
      {{- with $kafka.tls.ca.secret }}
      - secret: {name: {{ . }}, items: [{key: {{ $kafka.tls.ca.key }}, path: ca.crt}]}
      {{- end }}
      {{- if eq $auth.type "tls" }}
      - secret:
          name: {{ include "reviewmesh.kafkaSecret" . }}
          items: [{key: {{ $auth.certificateKey }}, path: client.crt}, {key: {{ $auth.keyKey }}, path: client.key}]
      {{- else if ne $auth.type "none" }}
      - secret: {name: {{ include "reviewmesh.kafkaSecret" . }}, items: [{key: {{ $auth.passwordKey }}, path: password}]}
      {{- end }}
{{- end }}
{{- if and .registry (or $registry.password.secret $registry.ca.secret $registry.certificate.secret) }}
- name: registry
  projected:
    defaultMode: 0440
    sources:
      {{- with $registry.password }}{{ if .secret }}
      - secret: {name: {{ .secret }}, items: [{key: {{ .key }}, path: password}]}
      {{- end }}{{ end }}
      {{- with $registry.ca }}{{ if .secret }}
      - secret: {name: {{ .secret }}, items: [{key: {{ .key }}, path: ca.crt}]}
      {{- end }}{{ end }}
      {{- with $registry.certificate }}{{ if .secret }}
      - secret:
          name: {{ .secret }}
          items: [{key: {{ .certificateKey }}, path: client.crt}, {key: {{ .keyKey }}, path: client.key}]
      {{- end }}{{ end }}
{{- end }}
{{- end -}}

{{/* root, component: a volume with the certificate of a gRPC client or server. */}}
{{- define "reviewmesh.tlsVolume" -}}
{{- $tls := .root.Values.tls -}}
{{- if $tls.enabled }}
- name: tls
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "reviewmesh.tlsSecret" . }}
          items:
            - {key: {{ $tls.caKey }}, path: ca.crt}
            - {key: {{ $tls.certificateKey }}, path: tls.crt}
            - {key: {{ $tls.keyKey }}, path: tls.key}
{{- end }}
{{- end -}}

{{- define "reviewmesh.tlsSecret" -}}
{{- if eq .root.Values.tls.source "certManager" -}}
{{ include "reviewmesh.fullname" .root }}-{{ .component }}-tls
{{- else -}}
{{ include "reviewmesh.of" (dict "pattern" .root.Values.tls.secret "component" .component) }}
{{- end -}}
{{- end -}}

{{/* volumes: mounts of those whose place is below /etc/reviewmesh */}}
{{- define "reviewmesh.mounts" -}}
{{- range . }}
{{- if has .name (list "kafka" "registry" "tls" "leaving" "intake" "provider" "traces") }}
- {name: {{ .name }}, mountPath: /etc/reviewmesh/{{ .name }}, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}
