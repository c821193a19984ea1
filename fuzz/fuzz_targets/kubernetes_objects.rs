//! Files of Kubernetes objects in YAML: read, decoded, put into the model, translated to xDS, and compiled by the proxies that get it.

use std::collections::BTreeSet;

use outrigger_control_plane::fuzzing::objects;
use outrigger_control_plane::model::{Interception, MeshSettings};
use outrigger_control_plane::snapshot::{Engine, Snapshot};
use outrigger_control_plane::source::Event;
use outrigger_proxy::fuzzing::Sandbox;
use outrigger_xds_api::ResourceType;

/// One after the other the objects come to the same as all at once, and what proxies get they accept.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Ok(objects) = objects(bytes) else { return };
    let settings = MeshSettings { access_log: true, interception: Interception::Redirect, ..MeshSettings::default() };
    let mut at_once = Engine::new(settings.clone());
    at_once.apply(objects.iter().cloned().map(Event::Upsert));
    let snapshot = at_once.publish().unwrap();
    let mut one_by_one = Engine::new(settings);
    let mut last = None;
    for object in objects {
        one_by_one.apply([Event::Upsert(object)]);
        last = one_by_one.publish().or(last);
    }
    if let Some(last) = last {
        assert_eq!(content(&last), content(&snapshot));
    }
    for scope in snapshot.scopes().filter(|scope| !snapshot.is_proxyless(scope)) {
        let mut proxy = Sandbox::default();
        for of in ResourceType::ALL {
            for resource in snapshot.resources(scope, of).iter() {
                let outcome = proxy.apply(of, &resource.name, &resource.content);
                assert_eq!(outcome, Ok(()), "{scope} refuses the {of} {}", resource.name);
            }
        }
    }
}

/// All that a snapshot says.
fn content(snapshot: &Snapshot) -> (BTreeSet<String>, Vec<String>) {
    let resources = snapshot.scopes().flat_map(|scope| {
        ResourceType::ALL.into_iter().flat_map(move |of| {
            let resources = snapshot.resources(scope, of);
            let lines = resources.iter().map(|resource| format!("{scope} {of} {} {}", resource.name, resource.version));
            lines.collect::<Vec<_>>()
        })
    });
    let findings = snapshot.problems().iter().chain(snapshot.rejections());
    (resources.collect(), findings.map(ToString::to_string).collect())
}
