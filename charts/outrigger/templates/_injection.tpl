{{/* What the control plane puts into each Pod: the document of --injection-settings and `outrigger inject --settings`. */}}
{{- define "outrigger.injection" -}}
{{- $mesh := .Values.mesh }}
{{- $proxy := .Values.proxy -}}
image: {{ include "outrigger.image" (list . "proxy") | quote }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
imagePullSecrets: {{ toJson .Values.images.pullSecrets }}
revision: {{ .Values.revision | quote }}
trustDomain: {{ $mesh.trustDomain | quote }}
clusterDomain: {{ $mesh.clusterDomain | quote }}
clusterName: {{ $mesh.clusterName | quote }}
xdsAddress: {{ printf "%s.%s.svc:15012" (include "outrigger.name" .) .Release.Namespace }}
tokenAudience: {{ $mesh.tokenAudience | quote }}
rootCertConfigMap: {{ include "outrigger.rootCertConfigMap" . }}
interceptionMode: {{ $proxy.interceptionMode | quote }}
nativeSidecar: {{ $proxy.nativeSidecar }}
holdApplicationUntilProxyStarts: {{ $proxy.holdApplicationUntilProxyStarts }}
resources: {{- toYaml $proxy.resources | nindent 2 }}
logLevel: {{ $proxy.logLevel | quote }}
rewriteAppHTTPProbers: {{ $proxy.rewriteAppHTTPProbers }}
mergeMetrics: {{ $proxy.mergeMetrics }}
readiness: {{- toYaml $proxy.readiness | nindent 2 }}
capture: {{- toYaml $proxy.capture | nindent 2 }}
{{- end }}
