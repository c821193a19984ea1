"""Has the real Helm SDK do what a suite asks: a JSON list of requests on standard input, a JSON list of answers on standard
output, each {"ok": ...} or {"error": "..."}. Run by support/helm.rs."""

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


def cluster(action):
    def act(request):
        with helm.Config(kubeconfig_path=request["kubeconfig"], namespace=request["namespace"]) as config:
            return action(config, request)
    return act


def install(config, request):
    return config.install(request["chart"], request["release"], request["values"], create_namespace=True, timeout=60)


def upgrade(config, request):
    return config.upgrade(request["chart"], request["release"], request["values"], timeout=60)


def rollback(config, request):
    return config.rollback(request["release"], version=request["revision"], timeout=60)


def history(config, request):
    return config.history(request["release"])


def uninstall(config, request):
    return config.uninstall(request["release"], timeout=60)


ACTIONS = {"lint": lint, "render": render}
ACTIONS |= {action.__name__: cluster(action) for action in (install, upgrade, rollback, history, uninstall)}


def answer(request):
    try:
        return {"ok": ACTIONS[request["action"]](request)}
    except helm.HelmError as error:
        return {"error": str(error)}


json.dump([answer(request) for request in json.load(sys.stdin)], sys.stdout)
