{{/* The control plane's Service, Deployment and ServiceAccount. */}}
{{- define "outrigger.name" -}}
outrigger-control-plane{{ if ne .Values.revision "default" }}-{{ .Values.revision }}{{ end }}
{{- end }}

{{/* What sidecars and the API server call the control plane by. */}}
{{- define "outrigger.servingNames" -}}
{{- $name := include "outrigger.name" . }}
{{- $service := printf "%s.%s.svc" $name .Release.Namespace }}
{{- list $name $service (printf "%s.%s" $service .Values.mesh.clusterDomain) "localhost" | join "," }}
{{- end }}

{{/* Objects without a namespace: two releases in one cluster must not share them. */}}
{{- define "outrigger.clusterName" -}}
{{ include "outrigger.name" . }}-{{ .Release.Namespace }}
{{- end }}

{{- define "outrigger.injectionSettings" -}}
{{ include "outrigger.name" . }}-injection
{{- end }}

{{/* The Secret in which the control plane keeps the root that it makes: one for all revisions in a namespace. */}}
{{- define "outrigger.caSecret" -}}
outrigger-ca
{{- end }}

{{/* The ConfigMap with the root certificate, in each namespace. */}}
{{- define "outrigger.rootCertConfigMap" -}}
outrigger-ca-root-cert
{{- end }}

{{/* What never changes in the life of a release. */}}
{{- define "outrigger.selectorLabels" -}}
app.kubernetes.io/name: outrigger-control-plane
app.kubernetes.io/instance: {{ .Release.Name }}
istio.io/rev: {{ .Values.revision | quote }}
{{- end }}

{{/* Of every object; the chart's own win over the user's. */}}
{{- define "outrigger.labels" -}}
{{- $own := include "outrigger.selectorLabels" . | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/part-of" "outrigger" }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") }}
{{- merge $own .Values.commonLabels | toYaml }}
{{- end }}

{{/* Of the Pod that `helm test` runs: not the Service's selector. */}}
{{- define "outrigger.testName" -}}
{{ include "outrigger.name" . }}-test
{{- end }}

{{/* (context, "controlPlane" or "proxy") -> the image's reference. */}}
{{- define "outrigger.image" -}}
{{- $context := index . 0 }}
{{- $image := index $context.Values.images (index . 1) }}
{{- with $context.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $context.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* An address to listen on, without its port. */}}
{{- define "outrigger.bind" -}}
{{ ternary "[::]" .Values.controlPlane.bindAddress (eq .Values.controlPlane.bindAddress "::") }}
{{- end }}

{{- define "outrigger.containerSecurityContext" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
privileged: false
readOnlyRootFilesystem: true
{{- end }}

{{- define "outrigger.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 1337
runAsGroup: 1337
fsGroup: 1337
seccompProfile: {type: RuntimeDefault}
{{- end }}
