{{- define "towline.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "towline.selectorLabels" -}}
app.kubernetes.io/name: towline
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "towline.labels" -}}
{{ include "towline.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
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

{{- /* What the controller may do where it works. Secrets can be read by name only, never listed. */ -}}
{{- define "towline.rules" -}}
- apiGroups: [towline.dev]
  resources: [backupstores, backupschedules]
  verbs: [get, list, watch]
- apiGroups: [towline.dev]
  resources: [backupjobs, restorejobs]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [towline.dev]
  resources: [backupstores/status, backupschedules/status, backupjobs/status, restorejobs/status]
  verbs: [get, update, patch]
# Asked for by the admission plugin OwnerReferencesPermissionEnforcement, where it is on.
- apiGroups: [towline.dev]
  resources: [backupschedules/finalizers, backupjobs/finalizers, restorejobs/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
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
