"""Has the real Helm SDK do what a suite asks: each line of standard input is a request in JSON, each line of standard
output the answer, {"ok": ...} or {"error": "..."}. Run by support/helm.rs."""

import functools
import json
import sys

import helm_python as helm


def lint(request):
    report = helm.lint(request["chart"], request["values"], strict=True, namespace=request["namespace"])
    severities = ["unknown", "info", "warning", "error"]
    return [f"{severities[message['severity']]}: {message['path']}: {message['error']}" for message in report["messages"]]


def render(request):
    """{path of the template: text}"""
    with helm.Chart.load(request["chart"]) as chart:
        return chart.render(request["values"], name=request["release"], namespace=request["namespace"])


@functools.cache
def config(kubeconfig, namespace):
    # Releases are kept in this process. Helm would keep them in Secrets, which it sends as protobuf: the API server of
    # the tests reads JSON and YAML.
    return helm.Config(kubeconfig_path=kubeconfig, namespace=namespace, storage_driver="memory")


def cluster(action):
    return lambda request: action(config(request["kubeconfig"], request["namespace"]), request)


def install(releases, request):
    return releases.install(request["chart"], request["release"], request["values"], create_namespace=True, timeout=60)


def upgrade(releases, request):
    return releases.upgrade(request["chart"], request["release"], request["values"], timeout=60)


def rollback(releases, request):
    return releases.rollback(request["release"], version=request["revision"], timeout=60)


def history(releases, request):
    return releases.history(request["release"])


def uninstall(releases, request):
    return releases.uninstall(request["release"], timeout=60)


ACTIONS = {"lint": lint, "render": render}
ACTIONS |= {action.__name__: cluster(action) for action in (install, upgrade, rollback, history, uninstall)}


def answer(request):
    try:
        return {"ok": ACTIONS[request["action"]](request)}
    except helm.HelmError as error:
        return {"error": str(error)}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
