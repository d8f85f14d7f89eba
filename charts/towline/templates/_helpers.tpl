{{- define "towline.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- /* At most 50 characters: suffixes follow, and 63 are allowed. */ -}}
{{- define "towline.fullname" -}}
{{- $name := include "towline.name" . -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "towline.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (include "towline.fullname" .) }}
{{- end }}

{{- define "towline.selectorLabels" -}}
app.kubernetes.io/name: {{ include "towline.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "towline.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: towline
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "towline.labels" -}}
{{ include "towline.selectorLabels" . }}
{{ include "towline.commonLabels" . }}
{{- end }}

{{- /* Of pods that are not the controller: no Service, policy or budget of its pods may match them. */ -}}
{{- define "towline.toolLabels" -}}
app.kubernetes.io/name: {{ include "towline.name" .root }}-{{ .tool }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{ include "towline.commonLabels" .root }}
{{- end }}

{{- define "towline.image" -}}
{{- if .Values.image.digest }}{{ printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- /* 64 MiB, and for each transfer four parts of 16 MiB and 16 MiB besides. */ -}}
{{- define "towline.memory" -}}
{{ add 64 (mul (int .Values.transfers.max) (add (mul 16 4) 16)) }}Mi
{{- end }}

{{- define "towline.resources" -}}
{{- $memory := include "towline.memory" . -}}
{{- $default := dict "requests" (dict "memory" $memory) "limits" (dict "memory" $memory) -}}
{{- if dig "limits" "memory" "" .Values.resources }}{{ $default = dict }}{{ end -}}
{{- toYaml (mergeOverwrite $default (deepCopy .Values.resources)) }}
{{- end }}

{{- /* Whether the status page is served beyond the pod. */ -}}
{{- define "towline.pageIsOut" -}}
{{- with .Values.page }}{{ if and .enabled (or .tls.secret .insecureHttp) }}yes{{ end }}{{ end -}}
{{- end }}

{{- /* SERIES=IMAGE of each tool image; without a tag it is VERSION-SERIES. */ -}}
{{- define "towline.toolImages" -}}
{{- $images := list -}}
{{- range $series, $image := .Values.toolImages }}
{{- if $image }}
{{- if not (regexMatch "(@|:[^/]+$)" $image) }}{{ $image = printf "%s:%s-%s" $image $.Chart.AppVersion $series }}{{ end }}
{{- $images = append $images (printf "%s=%s" $series $image) }}
{{- end }}
{{- end }}
{{- join "," $images }}
{{- end }}

{{- /* What a pod of the chart has whatever it does. */ -}}
{{- define "towline.pod" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* What the controller may do where it works. Secrets can be read by name only, never listed. */ -}}
{{- define "towline.rules" -}}
- apiGroups: [towline.dev]
  resources: [backupstores, backupschedules]
  verbs: [get, list, watch]
- apiGroups: [towline.dev]
  resources: [backupjobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [towline.dev]
  resources: [restorejobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [towline.dev]
  resources: [backupstores/status, backupschedules/status, backupjobs/status, restorejobs/status]
  verbs: [update, patch]
# Asked for by the admission plugin OwnerReferencesPermissionEnforcement, where it is on: a schedule owns its jobs
# and drills, a restore its Job.
- apiGroups: [towline.dev]
  resources: [backupschedules/finalizers, restorejobs/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
# A restore is a Job in the RestoreJob's namespace; a drill has a NetworkPolicy around it.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, create, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- /* Of what exists only while the release is uninstalled. */ -}}
{{- define "towline.uninstallMetadata" -}}
labels:
  {{- include "towline.toolLabels" (dict "root" . "tool" "uninstall") | nindent 2 }}
annotations:
  helm.sh/hook: pre-delete
  helm.sh/hook-weight: "0"
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end }}
