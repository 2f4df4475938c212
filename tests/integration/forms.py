# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the API server asks of fields beyond their schemas, and what keeps random objects from harming a cluster that others use."""
from __future__ import annotations

import base64
import typing as t

import hypothesis.strategies as st

# --- values ----------------------------------------------------------------------------------------------------------

LAST_CHARACTER = 0x10FFFF  # of Unicode; 0xFFFF: texts without emoji and the like
NOBODY = "example.com/nobody"  # a label, a driver and a signer that there is not

WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=7).map("x".__add__)  # valid wherever a name is asked for
# Neither control characters nor what is none: the API server reads a manifest as YAML, in which they are refused, or end a line.
_CHARACTERS = st.characters(max_codepoint=LAST_CHARACTER, exclude_categories=("Cc", "Cs", "Cn"))
TEXTS = st.text(_CHARACTERS, max_size=12) | st.sampled_from(["yes", "1e3", "0o7", "12:30", "null", "~", "=", "a: b", "two\nlines\n", " \t", "2031-02-03"])
KEYS = st.builds("{}{}".format, st.sampled_from(["", "example.com/", "a.example.com/"]), WORDS)
DOMAINS, SCOPED, PATHS = WORDS.map("{}.example.com".format), WORDS.map("example.com/{}".format), WORDS.map("/{}".format)
ADDRESSES = st.integers(1, 254).map("192.0.2.{}".format)  # RFC 5737: nobody's
NETWORKS = st.sampled_from(["192.0.2.0/24", "192.0.2.128/25", "2001:db8::/64"])
PORTS = st.integers(1, 65535)
BASE64 = st.binary(max_size=9).map(lambda data: base64.b64encode(data).decode()) | st.just("YWJj\nZGVm\n")  # as `base64 -w` breaks it
QUANTITIES = st.integers(1, 64).map(str) | st.sampled_from(["100m", "0.5", "1Gi", "1.5Gi", "2e3", "1024Ki", "0.1"]) | st.integers(1, 9)
TIMES = st.sampled_from(["2031-02-03T04:05:06Z", "2030-01-01T02:00:00+02:00"])
MICROTIMES = st.sampled_from(["2031-02-03T04:05:06.123456Z", "2030-01-01T00:00:00.000001Z"])
AMOUNTS = st.integers(1, 9) | st.integers(1, 99).map("{}%".format)
TRUE = st.sampled_from(["true", "1 < 2", "'a' != \"b\"", "[1, 2].all(x, x > 0)"])  # CEL

_JSON = st.recursive(
    st.none() | st.integers(-9, 9) | st.booleans() | TEXTS, lambda some: st.lists(some, max_size=2) | st.dictionaries(WORDS, some, max_size=2), max_leaves=4
)
OBJECTS = st.dictionaries(WORDS, _JSON, max_size=3)

_LEAVES = st.sampled_from([
    {"type": "string"}, {"type": "string", "minLength": 1, "pattern": "^x.*"}, {"type": "string", "enum": ["a", "b"], "default": "a"},
    {"type": "boolean"}, {"type": "number", "minimum": 0.5, "maximum": 1e21, "exclusiveMinimum": True},
    {"type": "integer", "format": "int64", "multipleOf": 2}, {"x-kubernetes-int-or-string": True},
    {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
])  # fmt: skip
_NOTES = st.fixed_dictionaries({}, optional={"description": TEXTS, "title": WORDS, "nullable": st.booleans()})
_FIELDS = st.recursive(
    st.builds(lambda leaf, notes: {**notes, **leaf}, _LEAVES, _NOTES),
    lambda some: st.dictionaries(WORDS, some, min_size=1, max_size=3).map(lambda known: {"type": "object", "properties": known})
    | some.map(lambda each: {"type": "array", "items": each, "maxItems": 5})
    | some.map(lambda each: {"type": "object", "additionalProperties": each}),
    max_leaves=6,
)
# What a definition says of its custom resources: a structural schema.
STRUCTURES = st.dictionaries(st.sampled_from(["spec", "status", "data"]), _FIELDS, max_size=3).map(lambda known: {"type": "object", "properties": known})

# `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=nobody`, in base64
REQUEST = (
    "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlITE1ITUNBUUF3RVRFUE1BMEdBMVVFQXd3R2JtOWliMlI1TUZrd0V3WUhLb1pJemowQ0FR"
    "WUlLb1pJemowRApBUWNEUWdBRWtoVUxlRHk1UGd1aFVvL2ppK0VJMHNjbzFjcEx4TG0yVFFkbllBd1BqUks3UEx2clJtaktzaFpVCmtGaXpZeklTdWd4cWty"
    "RFhCcXUyNU1YdklTNjRvS0FBTUFvR0NDcUdTTTQ5QkFNQ0EwZ0FNRVVDSUM5Z0RTelcKU05WdlJGOUdkM3h6OFpIQklNT25SM0h4TWlwVjZXTlEyaUJMQWlF"
    "QTBsZnpWWjdaU3VraEtCbHNPOTJFb05hZwprSmkrV2t4WUxhWk1IeEh2QUhvPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K"
)

# --- for the cluster's sake ------------------------------------------------------------------------------------------

# {kind: why there is no random object of it}
LEFT_OUT = {
    "Node": "every DaemonSet of the cluster would want a pod on it, and controllers write to it",
    "APIService": "a group that nobody serves breaks discovery for everybody: no namespace is emptied any more",
}

# {Type: fields that are always as here}: nothing runs, nothing is asked, and nobody else is served by it
FIXED: dict[str, dict[str, t.Any]] = {
    "PodSpec": {"schedulerName": "nobody", "automountServiceAccountToken": False},
    **dict.fromkeys(("DeploymentSpec", "ReplicaSetSpec", "StatefulSetSpec", "ReplicationControllerSpec"), {"replicas": 0}),
    **dict.fromkeys(("JobSpec", "CronJobSpec"), {"suspend": True}),
    **dict.fromkeys(("RuleWithOperations", "NamedRuleWithOperations"), {"apiGroups": ["nobody.example.com"]}),  # webhooks and policies match nothing
    "PriorityClass": {"globalDefault": False},
    "LimitedPriorityLevelConfiguration": {"nominalConcurrencyShares": 1},  # it takes them from all the others
    "PersistentVolumeClaimSpec": {"storageClassName": "nobody-claims"},  # no claim finds a volume
    "PersistentVolumeSpec": {"storageClassName": "nobody-offers"},
    "NamespaceSpec": {"finalizers": ["kubernetes"]},
    "CertificateSigningRequestSpec": {"request": REQUEST},
}

# {Type: fields that are never drawn}
NEVER: dict[str, tuple[str, ...]] = {
    "ObjectMeta": (  # what the server keeps for itself, and names
        "name", "namespace", "generateName", "managedFields", "uid", "resourceVersion", "generation", "selfLink", "creationTimestamp",
        "deletionTimestamp", "deletionGracePeriodSeconds",
    ),
    "PodSpec": ("nodeName", "priority", "ephemeralContainers"),  # a pod of no node is collected as garbage
    "PersistentVolumeSpec": ("claimRef", "volumeAttributesClassName"),
    "ServiceSpec": ("clusterIPs", "healthCheckNodePort"), "ServicePort": ("nodePort",),  # of the cluster's own ranges
    "CertificateSigningRequestSpec": ("username", "groups", "uid", "extra"),  # who asks
    "CustomResourceDefinitionVersion": ("selectableFields",),  # the validation of 1.34 panics on those that the schema has not
    "ResourceSliceSpec": ("allNodes", "perDeviceNodeSelection"), "ExactDeviceRequest": ("adminAccess",),
    # what hardly anything random is valid in
    "NodeSelectorTerm": ("matchFields",), "PriorityLevelConfigurationSpec": ("exempt",), "PolicyRule": ("nonResourceURLs",),
    "CustomResourceDefinitionSpec": ("preserveUnknownFields",), "Container": ("volumeDevices", "restartPolicyRules", "restartPolicy"),
    "events.v1.Event": ("deprecatedCount", "deprecatedFirstTimestamp", "deprecatedLastTimestamp", "deprecatedSource", "series"),
}  # fmt: skip

# --- what is valid ---------------------------------------------------------------------------------------------------

# {Type.field, or a field of every type that has it: what is valid there, or in its lists and maps}. The rest is drawn by its schema alone.
FORMS: dict[str, st.SearchStrategy] = {
    # texts
    **dict.fromkeys(("args", "command", "EnvVar.value", "message", "note", "description", "holderIdentity", "title", "example"), TEXTS),
    **dict.fromkeys(("ConfigMap.data", "Secret.stringData", "annotations", "parameters", "volumeAttributes"), TEXTS),
    # expressions and paths of fields
    **dict.fromkeys(("expression", "rule", "valueExpression"), TRUE),
    "messageExpression": st.sampled_from(["'no'", "'a' + 'b'"]), "AuditAnnotation.valueExpression": st.just("'value'"), "jsonPath": st.just(".spec.x"),
    "fieldPath": st.sampled_from(["metadata.name", "metadata.namespace", "spec.serviceAccountName"]), "specReplicasPath": st.just(".spec.replicas"),
    "statusReplicasPath": st.just(".status.replicas"), "labelSelectorPath": st.just(".status.selector"),
    # numbers
    **dict.fromkeys(("port", "containerPort", "number", "endPort"), PORTS),
    **dict.fromkeys(("mode", "defaultMode"), st.integers(0, 0o777)),
    **dict.fromkeys(("timeoutSeconds", "periodSeconds", "initialDelaySeconds", "failureThreshold"), st.integers(1, 30)),
    "successThreshold": st.just(1), "weight": st.integers(1, 100), "PriorityClass.value": st.integers(-2_000_000_000, 1_000_000_000),
    "matchingPrecedence": st.integers(1, 10_000), "ControllerRevision.revision": st.integers(0, 2**63 - 1),
    # addresses, and paths of files
    **dict.fromkeys(("externalIPs", "EndpointAddress.ip", "Endpoint.addresses", "nameservers", "loadBalancerIP", "HostAlias.ip"), ADDRESSES),
    **dict.fromkeys(("loadBalancerSourceRanges", "cidr", "cidrs"), NETWORKS), "except": st.just("192.0.2.192/26"),
    **dict.fromkeys(("mountPath", "HTTPIngressPath.path"), PATHS), "clusterIP": st.just("None"), "url": st.just("https://nobody.example.com/"),
    # names of a certain form
    **dict.fromkeys(("IngressRule.host", "externalName", "searches", "hosts", "driver", "driverName", "provisioner", "attacher"), DOMAINS),
    **dict.fromkeys(("ValidatingWebhook.name", "MutatingWebhook.name"), WORDS.map("{}.hooks.example.com".format)),
    **dict.fromkeys(
        ("signerName", "controller", "conditionType", "managedBy", "loadBalancerClass", "topologyKey", "matchAttribute", "distinctAttribute"), SCOPED
    ),
    **dict.fromkeys(("serviceAccountName", "serviceAccount"), st.just("default")), "RoleRef.kind": st.just("ClusterRole"),
    "RoleRef.apiGroup": st.just("rbac.authorization.k8s.io"),
    **dict.fromkeys(("CrossVersionObjectReference.apiVersion", "ParamKind.apiVersion"), st.just("example.com/v1")),
    "schedule": st.builds("{} {} * * *".format, st.integers(0, 59), st.integers(0, 23)),
    # choices
    "accessModes": st.sampled_from(["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"]),
    "addressType": st.just("IPv4"),
    "admissionReviewVersions": st.just("v1"),
    "allocationMode": st.sampled_from(["All", "ExactCount"]),
    "ContainerResizePolicy.restartPolicy": st.sampled_from(["NotRequired", "RestartContainer"]),
    "CustomResourceColumnDefinition.format": st.sampled_from(["int32", "double", "date", "byte"]),
    "CustomResourceColumnDefinition.type": st.sampled_from(["boolean", "date", "integer", "number", "string"]),
    "CustomResourceDefinitionSpec.scope": st.sampled_from(["Namespaced", "Cluster"]),
    "Event.type": st.sampled_from(["Normal", "Warning"]),
    "failurePolicy": st.just("Ignore"),
    "FlowDistinguisherMethod.type": st.sampled_from(["ByUser", "ByNamespace"]),
    "fsGroupPolicy": st.sampled_from(["File", "None", "ReadWriteOnceWithFSType"]),
    "HPAScalingPolicy.type": st.sampled_from(["Pods", "Percent"]),
    "ipFamilies": st.just("IPv4"),
    "ipFamilyPolicy": st.sampled_from(["SingleStack", "PreferDualStack"]),
    "LimitRangeItem.type": st.sampled_from(["Container", "Pod", "PersistentVolumeClaim"]),
    "matchPolicy": st.sampled_from(["Exact", "Equivalent"]),
    "operations": st.sampled_from(["CREATE", "UPDATE", "DELETE"]),
    "parameterNotFoundAction": st.sampled_from(["Allow", "Deny"]),
    "reinvocationPolicy": st.sampled_from(["Never", "IfNeeded"]),
    "resourceName": st.sampled_from(["cpu", "memory"]),
    "restartPolicy": st.just("Always"),
    "scopes": st.sampled_from(["Terminating", "NotBestEffort"]),
    "Secret.type": st.sampled_from(["Opaque", NOBODY]),
    "sideEffects": st.sampled_from(["None", "NoneOnDryRun"]),
    "timeZone": st.sampled_from(["Etc/UTC", "Europe/Berlin"]),
    "trafficDistribution": st.sampled_from(["PreferClose", "PreferSameZone", "PreferSameNode"]),
    "usages": st.sampled_from(["digital signature", "client auth", "server auth"]),
    "validationActions": st.sampled_from(["Deny", "Audit"]),
    "verbs": st.sampled_from(["get", "list", "watch", "create"]),
    "volumeLifecycleModes": st.sampled_from(["Persistent", "Ephemeral"]),
    "volumeMode": st.sampled_from(["Filesystem", "Block"]),
}  # fmt: skip

# {Type.field: what its whole value may be}
WHOLE = {
    "ObjectMeta.finalizers": st.sampled_from([["orphan"], ["foregroundDeletion"], []]),  # the garbage collector takes these off
    "ObjectMeta.ownerReferences": st.just([]),  # of the object itself: see `named`
    "CustomResourceDefinitionSpec.conversion": st.just({"strategy": "None"}),
    "CustomResourceValidation.openAPIV3Schema": STRUCTURES,
    "HorizontalPodAutoscalerSpec.minReplicas": st.integers(1, 3),
    "HorizontalPodAutoscalerSpec.maxReplicas": st.integers(3, 9),
    "PersistentVolumeClaimSpec.resources": st.fixed_dictionaries({"requests": st.fixed_dictionaries({"storage": QUANTITIES})}),
    "PersistentVolumeSpec.capacity": st.fixed_dictionaries({"storage": QUANTITIES}),
    "ResourceClaimTemplateSpec.metadata": st.fixed_dictionaries({"labels": st.dictionaries(KEYS, WORDS, max_size=2)}),
    "SuccessPolicy.rules": st.just([{"succeededIndexes": "0"}]),
    **dict.fromkeys(("HTTPGetAction.port", "TCPSocketAction.port", "ServicePort.targetPort", "NetworkPolicyPort.port"), PORTS | WORDS),
}

# {Type: what its values may be}
TYPES = {
    "Quantity": QUANTITIES, "IntOrString": AMOUNTS, "Time": TIMES, "MicroTime": MICROTIMES, "RawExtension": OBJECTS, "JSON": OBJECTS,
    "rbac.v1.Subject": st.fixed_dictionaries({"kind": st.just("ServiceAccount"), "name": WORDS, "namespace": WORDS})
    | st.fixed_dictionaries({"kind": st.sampled_from(["User", "Group"]), "name": WORDS, "apiGroup": st.just("rbac.authorization.k8s.io")}),
}  # fmt: skip

# {Type: fields that the server wants, although the schema does not}
NEEDED: dict[str, tuple[str, ...]] = {
    "AggregationRule": ("clusterRoleSelectors",),
    "Container": ("image",),
    "core.v1.Event": ("reportingComponent", "reportingInstance", "reason", "action", "type"),
    "CrossVersionObjectReference": ("apiVersion",),
    "CSIPersistentVolumeSource": ("volumeHandle",),
    "CustomResourceDefinitionVersion": ("schema",),
    "CustomResourceValidation": ("openAPIV3Schema",),
    **dict.fromkeys(("DeviceClaimConfiguration", "DeviceClassConfiguration"), ("opaque",)),
    "DeviceConstraint": ("matchAttribute",),
    "events.v1.Event": ("reportingController", "reportingInstance", "reason", "action", "type", "regarding"),
    "HPAScalingRules": ("policies",),
    "IngressRule": ("http",),
    "IngressSpec": ("rules",),
    "IPAddressSpec": ("parentRef",),
    "JobSpec": ("completions",),  # its validation of 1.34 panics without, where a success policy is set
    "JobTemplateSpec": ("spec",),
    "LimitedPriorityLevelConfiguration": ("limitResponse",),
    "MatchResources": ("resourceRules",),
    "NodeSelectorTerm": ("matchExpressions",),
    "ParamKind": ("apiVersion", "kind"),
    "ParamRef": ("parameterNotFoundAction",),
    "PersistentVolumeClaimSpec": ("accessModes", "resources"),
    "PersistentVolumeSpec": ("accessModes", "capacity"),
    "PodSpec": ("containers",),
    "PodTemplate": ("template",),
    "PodTemplateSpec": ("spec",),
    "PolicyRule": ("apiGroups", "resources"),
    **dict.fromkeys(("ReplicaSetSpec", "ReplicationControllerSpec"), ("template",)),
    "ResourcePolicyRule": ("namespaces",),
    **dict.fromkeys(("RuleWithOperations", "NamedRuleWithOperations"), ("apiVersions", "operations", "resources")),
    "ServiceCIDRSpec": ("cidrs",),
    "ServiceSpec": ("ports",),
    "TopologySelectorTerm": ("matchLabelExpressions",),
    "ValidatingAdmissionPolicyBindingSpec": ("policyName", "validationActions"),
    "ValidatingAdmissionPolicySpec": ("matchConstraints", "validations"),
}

# {Type: (the field that names a choice, or '', {its value: the field that is set then, or ''})}
CHOICES: dict[str, tuple[str, dict[str, str]]] = {
    "DeviceAttribute": ("", {"bool": "bool", "int": "int", "string": "string", "version": "version"}),
    "DeviceRequest": ("", {"exactly": "exactly", "first": "firstAvailable"}),
    "flowcontrol.v1.Subject": ("kind", {"User": "user", "Group": "group", "ServiceAccount": "serviceAccount"}),
    **dict.fromkeys(
        ("LabelSelectorRequirement", "NodeSelectorRequirement"), ("operator", {"In": "values", "NotIn": "values", "Exists": "", "DoesNotExist": ""})
    ),
    "LimitResponse": ("type", {"Reject": "", "Queue": "queuing"}),
    "MetricSpec": ("type", {"Resource": "resource", "Pods": "pods", "Object": "object", "External": "external", "ContainerResource": "containerResource"}),
    "MetricTarget": ("type", {"Utilization": "averageUtilization", "Value": "value", "AverageValue": "averageValue"}),
    "PodDisruptionBudgetSpec": ("", {"least": "minAvailable", "most": "maxUnavailable"}),
    "PriorityLevelConfigurationSpec": ("type", {"Limited": "limited"}),
    "ResourceSliceSpec": ("", {"name": "nodeName", "selector": "nodeSelector"}),
    "ScopedResourceSelectorRequirement": ("operator", {"Exists": ""}),
    "ServiceBackendPort": ("", {"name": "name", "number": "number"}),
    "VolumeAttachmentSource": ("", {"volume": "persistentVolumeName", "inline": "inlineVolumeSpec"}),
    "WebhookClientConfig": ("", {"url": "url", "service": "service"}),
}

# Types of whose fields that are objects exactly one is set; and such fields that are no part of the choice.
ONE_OF = dict.fromkeys(
    (
        "DownwardAPIVolumeFile", "EnvFromSource", "EnvVarSource", "IngressBackend", "LifecycleHandler", "NetworkPolicyPeer", "PersistentVolumeSpec",
        "Probe", "Volume", "VolumeProjection",
    ), True,
)  # fmt: skip
BESIDE = ("claimRef", "nodeAffinity")
