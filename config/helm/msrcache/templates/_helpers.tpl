{{- define "msrcache.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "msrcache.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "msrcache.labels" -}}
{{ include "msrcache.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "msrcache.serviceAccount" -}}
{{ if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "msrcache.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{/* The ports on which replicas follow each other: one for each worker. */}}
{{- define "msrcache.peerPorts" -}}
[{port: {{ .Values.peer.port }}, endPort: {{ sub (add .Values.peer.port .Values.workers) 1 }}}]
{{- end }}

{{- define "msrcache.probe" -}}
httpGet:
  path: {{ .path }}
  port: registry
  scheme: {{ if .root.Values.tls.existingSecret }}HTTPS{{ else }}HTTP{{ end }}
timeoutSeconds: 5
{{- end }}

{{/* The pods of one workload. `zone` is empty where one workload is for all zones. */}}
{{- define "msrcache.pod" -}}
{{- $root := .root }}
{{- with .root }}
metadata:
  labels:
    {{- include "msrcache.labels" . | nindent 4 }}
    {{- with $.zone }}
    msrcache/zone: {{ . }}
    {{- end }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    {{- if not .Values.existingConfigSecret }}
    checksum/config: {{ toYaml .Values.config | sha256sum }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "msrcache.serviceAccount" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.drain.gracePeriod }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- if or .Values.nodeSelector $.zone }}
  nodeSelector:
    {{- with $.zone }}
    topology.kubernetes.io/zone: {{ . }}
    {{- end }}
    {{- with .Values.nodeSelector }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq .Values.kind "Deployment" }}
  topologySpreadConstraints:
    {{- range ternary (list "kubernetes.io/hostname") (list "topology.kubernetes.io/zone" "kubernetes.io/hostname") (not (empty $.zone)) }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "msrcache.selector" $root | nindent 10 }}
          {{- with $.zone }}
          msrcache/zone: {{ . }}
          {{- end }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  containers:
    - name: cache
      image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [/config/config.yml]
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      env:
        - {name: REGISTRY_HTTP_ADDR, value: ":5000"}
        - {name: REGISTRY_HTTP_DRAINTIMEOUT, value: {{ .Values.drain.timeout | quote }}}
        - {name: REGISTRY_CACHE_DRAIN_DELAY, value: {{ .Values.drain.delay | quote }}}
        - {name: REGISTRY_CACHE_METRICS_ADDR, value: {{ printf ":%v" .Values.metrics.port | quote }}}
        - {name: REGISTRY_CACHE_WORKERS, value: {{ .Values.workers | quote }}}
        - {name: REGISTRY_CACHE_PEER_ADDR, value: {{ printf ":%v" .Values.peer.port | quote }}}
        - {name: REGISTRY_CACHE_SPOOL_PATH, value: /var/lib/msrcache/spool}
        - {name: REGISTRY_CACHE_SPOOL_SIZE, value: {{ .Values.spool.size | quote }}}
        {{- with .Values.trusted }}
        - {name: REGISTRY_CACHE_TRUSTED, value: {{ toJson . | quote }}}
        {{- end }}
        {{- if .Values.tls.existingSecret }}
        - {name: REGISTRY_HTTP_TLS_CERTIFICATE, value: /certs/tls/tls.crt}
        - {name: REGISTRY_HTTP_TLS_KEY, value: /certs/tls/tls.key}
        {{- end }}
        {{- with .Values.httpSecret }}
        {{- if .existingSecret }}
        - name: REGISTRY_HTTP_SECRET
          valueFrom:
            secretKeyRef: {name: {{ .existingSecret }}, key: {{ .key }}}
        {{- end }}
        {{- end }}
        {{- with .Values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: registry
          containerPort: 5000
          {{- with .Values.hostPort }}
          hostPort: {{ . }}
          {{- end }}
        - {name: metrics, containerPort: {{ .Values.metrics.port }}}
        - {name: peer, containerPort: {{ .Values.peer.port }}}
      startupProbe:
        {{- include "msrcache.probe" (dict "root" $root "path" "/healthz") | nindent 8 }}
        periodSeconds: 2
        failureThreshold: 30
      readinessProbe:
        {{- include "msrcache.probe" (dict "root" $root "path" "/readyz") | nindent 8 }}
        periodSeconds: 2
        failureThreshold: 2
      livenessProbe:
        {{- include "msrcache.probe" (dict "root" $root "path" "/healthz") | nindent 8 }}
        periodSeconds: 10
        failureThreshold: 6
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /config, readOnly: true}
        - {name: spool, mountPath: /var/lib/msrcache}
        - {name: tmp, mountPath: /tmp}
        {{- if .Values.store.existingClaim }}
        - {name: store, mountPath: {{ .Values.store.mountPath }}}
        {{- end }}
        {{- if .Values.tls.existingSecret }}
        - {name: tls, mountPath: /certs/tls, readOnly: true}
        {{- end }}
        {{- if .Values.upstreamCa.existingSecret }}
        - {name: upstream-ca, mountPath: /certs/upstream, readOnly: true}
        {{- end }}
  volumes:
    - name: config
      {{- if .Values.existingConfigSecret }}
      secret: {secretName: {{ .Values.existingConfigSecret }}}
      {{- else }}
      configMap: {name: {{ include "msrcache.name" . }}}
      {{- end }}
    - name: spool
      {{- if .Values.spool.storageClassName }}
      ephemeral:
        volumeClaimTemplate:
          spec:
            accessModes: [ReadWriteOnce]
            storageClassName: {{ .Values.spool.storageClassName }}
            resources: {requests: {storage: {{ .Values.spool.sizeLimit }}}}
      {{- else }}
      emptyDir: {sizeLimit: {{ .Values.spool.sizeLimit }}}
      {{- end }}
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
    {{- if .Values.store.existingClaim }}
    - name: store
      persistentVolumeClaim: {claimName: {{ .Values.store.existingClaim }}}
    {{- end }}
    {{- with .Values.tls.existingSecret }}
    - name: tls
      secret: {secretName: {{ . }}}
    {{- end }}
    {{- with .Values.upstreamCa.existingSecret }}
    - name: upstream-ca
      secret: {secretName: {{ . }}}
    {{- end }}
{{- end }}
{{- end }}
