{{/* root, component, registry: what every client of Kafka needs. */}}
{{- define "reviewmesh.kafkaEnvironment" -}}
{{- $kafka := .root.Values.kafka -}}
{{- $env := dict "REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS" (required "kafka.bootstrapServers is required, such as kafka:9092" $kafka.bootstrapServers) -}}
{{- range $name, $value := $kafka.options -}}
  {{- $_ := set $env (printf "REVIEWMESH_KAFKA__%s" (upper $name)) (include "reviewmesh.value" $value) -}}
{{- end -}}
{{- $sasl := has $kafka.auth.type (list "scram" "plain") -}}
{{- if or $sasl $kafka.tls.enabled -}}
  {{- $protocol := printf "%s%s" (ternary "SASL_" "" $sasl) (ternary "SSL" "PLAINTEXT" $kafka.tls.enabled) -}}
  {{- $_ := set $env "REVIEWMESH_KAFKA__SECURITY_PROTOCOL" $protocol -}}
{{- end -}}
{{- if $kafka.tls.ca.secret -}}
  {{- $_ := set $env "REVIEWMESH_KAFKA__SSL_CA_LOCATION" "/etc/reviewmesh/kafka/ca.crt" -}}
{{- end -}}
{{- if $sasl -}}
  {{- $_ := set $env "REVIEWMESH_KAFKA__SASL_MECHANISM" (ternary "PLAIN" $kafka.auth.mechanism (eq $kafka.auth.type "plain")) -}}
  {{- $_ := set $env "REVIEWMESH_KAFKA__SASL_USERNAME" (include "reviewmesh.kafkaUser" .) -}}
  {{- $_ := set $env "REVIEWMESH_KAFKA__SASL_PASSWORD_FILE" "/etc/reviewmesh/kafka/password" -}}
{{- else if eq $kafka.auth.type "tls" -}}
  {{- $_ := set $env "REVIEWMESH_KAFKA__SSL_CERTIFICATE_LOCATION" "/etc/reviewmesh/kafka/client.crt" -}}
  {{- $_ := set $env "REVIEWMESH_KAFKA__SSL_KEY_LOCATION" "/etc/reviewmesh/kafka/client.key" -}}
{{- end -}}
{{- if .registry -}}
  {{- $registry := .root.Values.registry -}}
  {{- $_ := set $env "REVIEWMESH_REGISTRY__URL" (required "registry.url is required, such as http://registry:8080/apis/ccompat/v7" $registry.url) -}}
  {{- if $registry.username -}}
    {{- $_ := set $env "REVIEWMESH_REGISTRY__USERNAME" $registry.username -}}
  {{- end -}}
  {{- if $registry.password.secret -}}
    {{- $_ := set $env "REVIEWMESH_REGISTRY__PASSWORD_FILE" "/etc/reviewmesh/registry/password" -}}
  {{- end -}}
  {{- if $registry.ca.secret -}}
    {{- $_ := set $env "REVIEWMESH_REGISTRY__SSL_CA_LOCATION" "/etc/reviewmesh/registry/ca.crt" -}}
  {{- end -}}
  {{- if $registry.certificate.secret -}}
    {{- $_ := set $env "REVIEWMESH_REGISTRY__SSL_CERTIFICATE_LOCATION" "/etc/reviewmesh/registry/client.crt" -}}
    {{- $_ := set $env "REVIEWMESH_REGISTRY__SSL_KEY_LOCATION" "/etc/reviewmesh/registry/client.key" -}}
  {{- end -}}
{{- end -}}
{{ toYaml $env }}
{{- end -}}

{{/* root, settings: of every process. */}}
{{- define "reviewmesh.processEnvironment" -}}
{{- $env := dict "REVIEWMESH_HTTP__HOST" "0.0.0.0" "REVIEWMESH_HTTP__PORT" "9100" -}}
{{- range $name, $value := mergeOverwrite (deepCopy .root.Values.settings) (deepCopy .settings) -}}
  {{- $_ := set $env (printf "REVIEWMESH_%s" $name) (include "reviewmesh.value" $value) -}}
{{- end -}}
{{ toYaml $env }}
{{- end -}}

{{- define "reviewmesh.tlsEnvironment" -}}
{{- if .Values.tls.enabled -}}
REVIEWMESH_TLS__CA: /etc/reviewmesh/tls/ca.crt
REVIEWMESH_TLS__CERTIFICATE: /etc/reviewmesh/tls/tls.crt
REVIEWMESH_TLS__KEY: /etc/reviewmesh/tls/tls.key
{{- else -}}
{}
{{- end -}}
{{- end -}}

{{/* root, component, service */}}
{{- define "reviewmesh.serviceEnvironment" -}}
{{- $root := .root -}}{{- $service := .service -}}
{{- $env := merge
  (fromYaml (include "reviewmesh.processEnvironment" (dict "root" $root "settings" $service.settings)))
  (fromYaml (include "reviewmesh.kafkaEnvironment" (dict "root" $root "component" .component "registry" $service.registry)))
-}}
{{- $_ := set $env "REVIEWMESH_GRACE_S" (include "reviewmesh.value" $service.graceSeconds) -}}
{{- with $root.Values.prefix -}}
  {{- $_ := set $env "REVIEWMESH_PREFIX" . -}}
{{- end -}}
{{- if dig "forwardingSecret" "secret" "" $service -}}
  {{- $_ := set $env "REVIEWMESH_INTAKE__FORWARDING_SECRET_FILE" "/etc/reviewmesh/intake/forwarding-secret" -}}
{{- end -}}
{{- $observes := or (eq .component "joiner") (hasPrefix "enricher-" .component) -}}
{{- /* Who measures latencies puts the ids of traces beside them, where there are traces. */ -}}
{{- if and $observes $root.Values.services.tracer.enabled -}}
  {{- $_ := set $env "REVIEWMESH_TRACES__ENDPOINT" $root.Values.traces.endpoint -}}
{{- end -}}
{{- if eq .component "tracer" -}}
  {{- $_ := set $env "REVIEWMESH_TRACES__ENDPOINT" (required "traces.endpoint is required with services.tracer.enabled, such as http://collector:4318" $root.Values.traces.endpoint) -}}
  {{- if $root.Values.traces.authorization.secret -}}
    {{- $_ := set $env "REVIEWMESH_TRACES__AUTHORIZATION_FILE" "/etc/reviewmesh/traces/authorization" -}}
  {{- end -}}
{{- end -}}
{{- if $service.asks -}}
  {{- $env = merge $env (fromYaml (include "reviewmesh.tlsEnvironment" $root)) -}}
  {{- $names := dict "primary" "WORKERS" "candidate" "CANDIDATES" -}}
  {{- if $service.task -}}
    {{- $_ := set $names "fallback" "FALLBACKS" -}}
  {{- end -}}
  {{- range $task := list "ner" "topic" "sentiment" -}}
    {{- range $role, $name := $names -}}
      {{- with include "reviewmesh.addresses" (dict "root" $root "role" $role "task" $task) -}}
        {{- $_ := set $env (printf "REVIEWMESH_%s__%s" $name (upper $task)) . -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if $service.task -}}
  {{- if $root.Values.policy -}}
    {{- $_ := set $env "REVIEWMESH_POLICY" "/etc/reviewmesh/leaving/policy.yaml" -}}
  {{- end -}}
  {{- if $root.Values.budgets -}}
    {{- $_ := set $env "REVIEWMESH_BUDGETS" "/etc/reviewmesh/leaving/budgets.yaml" -}}
  {{- end -}}
{{- end -}}
{{ toYaml $env }}
{{- end -}}

{{/* root, group */}}
{{- define "reviewmesh.workerEnvironment" -}}
{{- $root := .root -}}{{- $group := .group -}}
{{- $env := merge
  (fromYaml (include "reviewmesh.processEnvironment" (dict "root" $root "settings" $group.settings)))
  (fromYaml (include "reviewmesh.tlsEnvironment" $root))
-}}
{{- $_ := set $env "REVIEWMESH_WORKER__HOST" "0.0.0.0" -}}
{{- $_ := set $env "REVIEWMESH_WORKER__PORT" "50051" -}}
{{- $_ := set $env "REVIEWMESH_WORKER__TASKS" (join "," $group.tasks) -}}
{{- $_ := set $env "REVIEWMESH_WORKER__ENGINE" $group.engine -}}
{{- $_ := set $env "REVIEWMESH_WORKER__GRACE_S" (include "reviewmesh.value" $group.longestCallSeconds) -}}
{{- if $group.modelRegistry -}}
  {{- $_ := set $env "REVIEWMESH_WORKER__MODEL_REGISTRY" "/models" -}}
  {{- $_ := set $env "REVIEWMESH_WORKER__ALIAS" (ternary "candidate" "serving" (eq $group.role "candidate")) -}}
{{- end -}}
{{- if $group.apiKey.secret -}}
  {{- $_ := set $env "REVIEWMESH_OPENAI__API_KEY_FILE" "/etc/reviewmesh/provider/api-key" -}}
{{- end -}}
{{- if $root.Values.tls.enabled -}}
  {{- $names := list -}}
  {{- range fromYamlArray (include "reviewmesh.callers" .) -}}
    {{- $names = append $names (include "reviewmesh.host" (dict "root" $root "component" .)) -}}
  {{- end -}}
  {{- $_ := set $env "REVIEWMESH_WORKER__ALLOWED_CLIENTS" (concat $names $root.Values.tls.extraAllowedClients | join ",") -}}
{{- end -}}
{{ toYaml $env }}
{{- end -}}

{{/* A map of names and values as a container has it. */}}
{{- define "reviewmesh.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ toJson $value }}
{{- end }}
{{- end -}}
