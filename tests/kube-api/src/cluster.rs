//! The state behind the server, shared by its connections and by the test: objects, kinds, tokens, switches.
//!
//! It outlives the server's threads, so that a server that was killed comes back with the same state.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::access::tokens::Tokens;
use crate::admission::Addresses;
use crate::kinds::{Collection, Kinds, Resource, custom};
use crate::object;
use crate::schema::Schemas;
use crate::status::{Result, Status};
use crate::store::{Name, Store};
use crate::switches::Switches;
use crate::verbs::exec::Nodes;

/// See the module.
#[derive(Debug)]
pub(crate) struct Cluster {
    store: Mutex<Store>,
    kinds: Mutex<Kinds>,
    /// The store's version; wakes the watches.
    version: watch::Sender<u64>,
    pub(crate) switches: Switches,
    pub(crate) tokens: Tokens,
    /// Where webhooks of services are reached.
    pub(crate) addresses: Addresses,
    /// Who runs commands in containers.
    pub(crate) nodes: Nodes,
    /// Kubernetes' own schemas, when they are installed.
    pub(crate) schemas: Schemas,
}

/// A lock that a panic elsewhere does not spoil: the values are consistent between two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn definitions() -> Collection {
    Collection::new("apiextensions.k8s.io", "customresourcedefinitions")
}

/// Group and plural of what a definition defines.
fn defined(definition: &Value) -> (&str, &str) {
    let spec = &definition["spec"];
    (spec["group"].as_str().unwrap_or_default(), spec["names"]["plural"].as_str().unwrap_or_default())
}

impl Cluster {
    pub(crate) fn new(tokens: Tokens, schemas: Schemas) -> Self {
        Cluster {
            store: Mutex::default(),
            kinds: Mutex::new(Kinds::new()),
            version: watch::Sender::new(0),
            switches: Switches::new(),
            tokens,
            addresses: Addresses::default(),
            nodes: Nodes::default(),
            schemas,
        }
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&Store) -> T) -> T {
        read(&lock(&self.store))
    }

    /// Changes the store and wakes the watches.
    pub(crate) fn write<T>(&self, write: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = lock(&self.store);
        let result = write(&mut store);
        self.version.send_if_modified(|version| {
            let changed = *version != store.version();
            *version = store.version();
            changed
        });
        result
    }

    pub(crate) fn kinds<T>(&self, read: impl FnOnce(&Kinds) -> T) -> T {
        read(&lock(&self.kinds))
    }

    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(crate) fn get(&self, collection: &Collection, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.read(|store| store.get(collection, &(namespace.to_owned(), name.to_owned())))
    }

    /// Stores a new object.
    pub(crate) fn create(&self, resource: &Resource, object: Value) -> Result<Arc<Value>> {
        let collection = resource.collection();
        let name = (object::namespace(&object).to_owned(), object::name(&object).to_owned());
        let created = self.write(|store| match store.get(&collection, &name) {
            Some(_) => Err(Status::already_exists(&resource.group, &resource.plural, &name.1)),
            None => Ok(store.put(&collection, object)),
        })?;
        if collection == definitions() {
            let (group, plural) = defined(&created);
            lock(&self.kinds).announce(group, plural);
            if !self.switches.holds_definitions() {
                self.establish(&created);
            }
        } else if collection == Collection::new("", "namespaces") {
            self.create_default_account(object::name(&created));
        }
        Ok(created)
    }

    /// Every namespace has a service account `default`. A controller makes it in a real cluster.
    fn create_default_account(&self, namespace: &str) {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {
            "name": "default", "namespace": namespace, "uid": object::random_uid(),
            "creationTimestamp": object::now()}});
        self.write(|store| store.put(&Collection::new("", "serviceaccounts"), account));
    }

    /// Stores an object if it still has the version that the change was made from; `None` otherwise.
    pub(crate) fn replace(&self, resource: &Resource, from: u64, object: Value) -> Option<Arc<Value>> {
        let collection = resource.collection();
        let name = (object::namespace(&object).to_owned(), object::name(&object).to_owned());
        let replaced = self.write(|store| {
            let current = store.get(&collection, &name)?;
            (object::version(&current) == from).then(|| store.put(&collection, object))
        })?;
        if collection == definitions() && custom::is_established(&replaced) {
            self.define(&replaced, true);
        }
        Some(replaced)
    }

    fn define(&self, definition: &Value, served: bool) {
        let (group, plural) = defined(definition);
        lock(&self.kinds).define(group, plural, served.then_some(definition));
    }

    /// Serves what a stored definition defines.
    fn establish(&self, definition: &Value) {
        let mut established = definition.clone();
        custom::establish(&mut established);
        let established = self.write(|store| store.put(&definitions(), established));
        self.define(&established, true);
    }

    /// Serves what every stored definition defines.
    pub(crate) fn establish_all(&self) {
        for definition in self.read(|store| store.list(&definitions())).values() {
            if !custom::is_established(definition) {
                self.establish(definition);
            }
        }
    }

    /// Takes an object out for good, with everything that lives only because of it. Gives back the object with the
    /// version of its deletion.
    pub(crate) fn remove(&self, collection: &Collection, name: &Name) -> Option<Value> {
        let removed = self.write(|store| store.remove(collection, name))?;
        if *collection == definitions() {
            self.remove_custom_resources(&removed);
        } else if *collection == Collection::new("", "namespaces") {
            self.remove_namespaced(&name.1);
        }
        self.collect_garbage(object::uid(&removed));
        Some(removed)
    }

    fn remove_custom_resources(&self, definition: &Value) {
        let (group, plural) = defined(definition);
        let collection = Collection::new(group, plural);
        for name in self.read(|store| store.list(&collection)).into_keys() {
            self.remove(&collection, &name);
        }
        self.define(definition, false);
        // Its watches look again and end.
        self.version.send_modify(|_| {});
    }

    fn remove_namespaced(&self, namespace: &str) {
        for collection in self.read(Store::collections) {
            for name in self.read(|store| store.list(&collection)).into_keys() {
                if name.0 == namespace {
                    self.remove(&collection, &name);
                }
            }
        }
    }

    /// Deletes (in the background, as the garbage collector does) what was owned by `uid` and by nobody else.
    fn collect_garbage(&self, uid: &str) {
        for collection in self.read(Store::collections) {
            for (name, dependent) in self.read(|store| store.list(&collection)) {
                let owners = dependent["metadata"]["ownerReferences"].as_array();
                let owners = owners.map(Vec::as_slice).unwrap_or_default();
                if !owners.iter().any(|owner| owner["uid"] == uid) {
                    continue;
                }
                let mut rest = (*dependent).clone();
                let left: Vec<Value> = owners.iter().filter(|owner| owner["uid"] != uid).cloned().collect();
                if left.iter().any(|owner| self.exists(owner["uid"].as_str().unwrap_or_default())) {
                    object::set_meta(&mut rest, "ownerReferences", left.into());
                    self.write(|store| store.put(&collection, rest));
                } else if object::has_finalizers(&dependent) {
                    object::set_meta(&mut rest, "deletionTimestamp", object::now().into());
                    object::set_meta(&mut rest, "deletionGracePeriodSeconds", 0.into());
                    self.write(|store| store.put(&collection, rest));
                } else {
                    self.remove(&collection, &name);
                }
            }
        }
    }

    fn exists(&self, uid: &str) -> bool {
        self.read(|store| {
            store
                .collections()
                .iter()
                .any(|collection| store.list(collection).values().any(|object| object::uid(object) == uid))
        })
    }
}
