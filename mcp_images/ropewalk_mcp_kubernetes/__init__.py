"""An MCP server that shows an agent its cluster: cluster_info, pod_management and logs_retrieval.

It never shows environment variables, Secrets or ConfigMaps, never changes anything but by deleting a pod, and
deletes only when it was started with --allow-delete (or ROPEWALK_ALLOW_DELETE=true).

The RBAC rules that each tool needs, all in the core API group (""); what is not granted is answered with FORBIDDEN:

| tool | action | resource: verbs | scope |
|---|---|---|---|
| cluster_info | | nodes: list | cluster |
| cluster_info | | namespaces: list | cluster |
| cluster_info | | pods: list (their number) | cluster, or each of --namespaces |
| pod_management | list in one namespace | pods: list; events: list | that namespace |
| pod_management | list in all namespaces | pods: list; events: list | cluster, or each of --namespaces |
| pod_management | get | pods: get | the pod's namespace |
| pod_management | describe | pods: get; events: list | the pod's namespace |
| pod_management | delete | pods: delete | the pod's namespace |
| logs_retrieval | | pods/log: get | the pod's namespace |

The version of the server comes from /version, which every ServiceAccount may read. cluster_info, list and
describe do without what they may not read, and say so; no tool watches, and none needs any other verb.
"""
