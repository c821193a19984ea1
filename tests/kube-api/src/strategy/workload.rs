//! The workload kinds that hold a pod template.

use serde_json::{Map, Value, json};

use super::pod;
use crate::object;

pub(super) fn default(plural: &str, workload: &mut Value) {
    let spec = object::child(object::root(workload), "spec");
    match plural {
        "deployments" => {
            object::default(spec, "replicas", 1);
            object::default(spec, "revisionHistoryLimit", 10);
            object::default(spec, "progressDeadlineSeconds", 600);
            let strategy = object::child(spec, "strategy");
            object::default(strategy, "type", "RollingUpdate");
            if strategy.get("type").is_some_and(|one| one == "RollingUpdate") {
                let rolling = object::child(strategy, "rollingUpdate");
                object::default(rolling, "maxUnavailable", "25%");
                object::default(rolling, "maxSurge", "25%");
            }
        }
        "statefulsets" => {
            object::default(spec, "replicas", 1);
            object::default(spec, "revisionHistoryLimit", 10);
            object::default(spec, "podManagementPolicy", "OrderedReady");
            object::default(object::child(spec, "updateStrategy"), "type", "RollingUpdate");
        }
        "daemonsets" => {
            object::default(spec, "revisionHistoryLimit", 10);
            object::default(object::child(spec, "updateStrategy"), "type", "RollingUpdate");
        }
        "replicasets" => object::default(spec, "replicas", 1),
        "jobs" => default_job(spec),
        "cronjobs" => {
            object::default(spec, "concurrencyPolicy", "Allow");
            object::default(spec, "suspend", false);
            object::default(spec, "successfulJobsHistoryLimit", 3);
            object::default(spec, "failedJobsHistoryLimit", 1);
            let job = object::child(object::child(spec, "jobTemplate"), "spec");
            template(job);
            return;
        }
        _ => return,
    }
    template(spec);
}

fn default_job(spec: &mut Map<String, Value>) {
    object::default(spec, "completions", 1);
    object::default(spec, "parallelism", 1);
    object::default(spec, "backoffLimit", 6);
    object::default(spec, "completionMode", "NonIndexed");
    object::default(spec, "suspend", false);
    object::default(spec, "podReplacementPolicy", "TerminatingOrFailed");
    object::default(spec, "manualSelector", json!(false));
}

fn template(spec: &mut Map<String, Value>) {
    let template = object::child(spec, "template");
    pod::default_spec(object::child(template, "spec"));
}
