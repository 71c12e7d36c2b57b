{{- define "tenantry.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "tenantry.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tenantry.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "tenantry.selector" . }}
{{- end }}

{{- define "tenantry.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "tenantry.name" .) }}
{{- end }}

{{- define "tenantry.kind" -}}
{{ ternary "StatefulSet" "Deployment" .Values.persistence.enabled }}
{{- end }}

{{- /* Whether there is, or may be, more than one gateway. */ -}}
{{- define "tenantry.several" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}true{{ end -}}
{{- end }}

{{- /* What several gateways share has to be somewhere. */ -}}
{{- define "tenantry.refuse" -}}
{{- if include "tenantry.several" . }}
{{- if not .Values.database.existingSecret }}
{{- fail "database.existingSecret: several gateways need one database; name a secret with its URL, or set replicas to 1" }}
{{- end }}
{{- if not .Values.ratingsSecret.existingSecret }}
{{- fail "ratingsSecret.existingSecret: several gateways need the same secret, or one refuses ratings of what another generated" }}
{{- end }}
{{- end }}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- fail "autoscaling.minReplicas is greater than autoscaling.maxReplicas" }}
{{- end }}
{{- if .Values.workerAutoscaling.enabled }}
{{- if or (not .Values.workerAutoscaling.base) (not .Values.workerAutoscaling.target.name) }}
{{- fail "workerAutoscaling: needs `base` and `target.name`" }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A variable from a secret. */ -}}
{{- define "tenantry.secretEnv" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret.existingSecret }}
      key: {{ .secret.key }}
{{- end }}
