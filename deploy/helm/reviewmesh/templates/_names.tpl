{{/* Short enough for what Kubernetes adds: a StatefulSet's name has 52 characters at most. */}}
{{- define "reviewmesh.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 32 | trimSuffix "-" -}}
{{- end -}}

{{/* By which pods of the release are found; with `component`, those of one service or group. */}}
{{- define "reviewmesh.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "reviewmesh.labels" -}}
{{ include "reviewmesh.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: reviewmesh
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Of pods: none that an upgrade of the chart alone changes, which would start all of them anew. */}}
{{- define "reviewmesh.podLabels" -}}
{{ include "reviewmesh.selector" . }}
app.kubernetes.io/part-of: reviewmesh
{{- end -}}

{{- define "reviewmesh.serviceAccount" -}}
{{- $made := ternary (include "reviewmesh.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $made .Values.serviceAccount.name -}}
{{- end -}}

{{/* root, image: a name below `images` */}}
{{- define "reviewmesh.image" -}}
{{- $images := .root.Values.images -}}
{{- $image := index $images .image -}}
{{- with $images.registry }}{{ . }}/{{ end -}}
{{- $image.repository -}}
{{- with $image.digest }}@{{ . }}{{ else }}:{{ default .root.Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{/* root, component: the host name under which a worker group is reached, and its certificate's. */}}
{{- define "reviewmesh.host" -}}
{{ include "reviewmesh.fullname" .root }}-{{ .component }}.{{ .root.Release.Namespace }}.svc
{{- end -}}

{{/* pattern, component */}}
{{- define "reviewmesh.of" -}}
{{ .pattern | replace "{component}" .component }}
{{- end -}}

{{- define "reviewmesh.kafkaSecret" -}}
{{- $auth := .root.Values.kafka.auth -}}
{{- default (include "reviewmesh.of" (dict "pattern" $auth.secret "component" .component)) (get $auth.secrets .component) -}}
{{- end -}}

{{- define "reviewmesh.kafkaUser" -}}
{{- $auth := .root.Values.kafka.auth -}}
{{- default (include "reviewmesh.of" (dict "pattern" $auth.user "component" .component)) (get $auth.users .component) -}}
{{- end -}}

{{/* As an environment variable has it: Helm would write 1e+06 for a million. */}}
{{- define "reviewmesh.value" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}
