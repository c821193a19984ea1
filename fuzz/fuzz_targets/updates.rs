//! Responses of the incremental variant, one after the other (each behind its length), applied to a configuration: resources of all
//! types that come, change, are refused and go.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_proxy::fuzzing::Sandbox;
use outrigger_xds_api::wire::discovery::v3::DeltaDiscoveryResponse;
use outrigger_xds_api::{ResourceType, json};
use serde_json::Value;

use crate::input::messages;
use crate::resources::check_dump;

/// Of each listener the newest version that was accepted is in force or waits, whatever else came; nothing more is there.
pub(crate) fn fuzz(bytes: &[u8]) {
    let mut sandbox = Sandbox::default();
    let mut accepted: BTreeMap<String, Value> = BTreeMap::new();
    for response in messages::<DeltaDiscoveryResponse>(bytes) {
        let Some(of) = ResourceType::from_type_url(&response.type_url) else { continue };
        for update in &response.resources {
            let Some(resource) = &update.resource else { continue };
            let outcome = sandbox.apply(of, &update.name, resource);
            if of == ResourceType::Listener && outcome.is_ok() {
                let shown = json::to_json(of.message_name(), &resource.value).unwrap();
                accepted.insert(update.name.clone(), shown);
            }
        }
        for name in &response.removed_resources {
            sandbox.remove(of, name);
            if of == ResourceType::Listener {
                accepted.remove(name);
            }
        }
        let dump = check_dump(&sandbox);
        let listeners = newest_listeners(&dump);
        let expected: BTreeSet<&str> = accepted.keys().map(String::as_str).collect();
        assert_eq!(listeners.keys().copied().collect::<BTreeSet<_>>(), expected);
        for (name, shown) in &accepted {
            let mut found = listeners[name.as_str()].clone();
            found.as_object_mut().unwrap().remove("@type");
            assert_eq!(found, *shown);
        }
    }
}

/// By name; what waits is newer than what is in force.
fn newest_listeners(dump: &Value) -> BTreeMap<&str, &Value> {
    let entries = dump["configs"].as_array().into_iter().flatten();
    let entries = entries.filter_map(|config| config["dynamic_listeners"].as_array()).flatten();
    let newest = entries.filter_map(|entry| {
        let states = ["warming_state", "active_state"];
        let listener = states.iter().find_map(|state| entry[state].get("listener"))?;
        Some((entry["name"].as_str()?, listener))
    });
    newest.collect()
}
