//! A pod as its containers see it: network, volumes, environment, user. A container is a process in the pod's network namespace and
//! in a mount namespace of its own, with the image's programs on its `PATH` and the root read-only when it asks for that.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use outrigger_kube_api::{ApiServer, Collection, TokenSpec};
use serde_json::Value;

use crate::netns::NetPod;
use crate::proxy::binary;
use crate::wait;

/// Where a container finds the programs of its image.
const IMAGE: &str = "/run/image";

/// A pod's surroundings.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// Its network.
    pub net: NetPod,
    /// The Pod as the API server has it after admission.
    pub pod: Value,
    /// The node's address.
    pub host: IpAddr,
    /// Holds the volumes by name, and the logs.
    pub folder: PathBuf,
    /// Where names are asked for; `None`: where this machine does.
    pub(super) resolver: Option<IpAddr>,
    /// Of every container.
    pub(super) services: Vec<(String, String)>,
}

impl Sandbox {
    /// The Pod's namespace.
    pub fn namespace(&self) -> &str {
        text(&self.pod["metadata"]["namespace"])
    }

    /// The Pod's name.
    pub fn name(&self) -> &str {
        text(&self.pod["metadata"]["name"])
    }

    /// Where a port of the Pod is reached from outside.
    pub fn address(&self, port: u16) -> SocketAddr {
        (self.net.v4, port).into()
    }

    /// Makes the volumes. A ConfigMap that is not there yet is waited for.
    ///
    /// # Panics
    /// For a volume of a kind that the tests don't need.
    pub fn make_volumes(&self, server: &ApiServer) {
        for volume in list(&self.pod["spec"]["volumes"]) {
            let folder = self.volume(text(&volume["name"]));
            fs::create_dir_all(&folder).expect("folder of a volume");
            if !volume["emptyDir"].is_null() {
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("permissions");
            } else if let Some(name) = volume["configMap"]["name"].as_str() {
                for (key, value) in self.config_map(server, name) {
                    write(&folder.join(key), text(&value));
                }
            } else if let Some(sources) = volume["projected"]["sources"].as_array() {
                for source in sources {
                    self.project(server, source, &folder);
                }
            } else {
                panic!("no volume of this kubelet: {volume}");
            }
        }
    }

    /// A source of a projected volume.
    fn project(&self, server: &ApiServer, source: &Value, folder: &Path) {
        let (token, downward) = (&source["serviceAccountToken"], &source["downwardAPI"]);
        if token.is_object() {
            write(&folder.join(text(&token["path"])), &self.token(server, token));
        } else if source["configMap"]["name"] == "kube-root-ca.crt" {
            // A controller keeps it in each namespace.
            write(&folder.join("ca.crt"), server.authority());
        } else {
            assert!(downward.is_object(), "no projected source of this kubelet: {source}");
            for item in list(&downward["items"]) {
                write(&folder.join(text(&item["path"])), &self.field(text(&item["fieldRef"]["fieldPath"])));
            }
        }
    }

    fn config_map(&self, server: &ApiServer, name: &str) -> serde_json::Map<String, Value> {
        let found = wait::eventually(&format!("the ConfigMap {name}"), || {
            server.get(&Collection::new("", "configmaps"), self.namespace(), name)
        });
        found["data"].as_object().cloned().unwrap_or_default()
    }

    /// As the kubelet asks for it with a TokenRequest.
    fn token(&self, server: &ApiServer, source: &Value) -> String {
        let spec = TokenSpec {
            namespace: self.namespace().to_owned(),
            service_account: text(&self.pod["spec"]["serviceAccountName"]).to_owned(),
            audiences: source["audience"].as_str().map(str::to_owned).into_iter().collect(),
            expires_in: source["expirationSeconds"].as_i64().unwrap_or(3600),
            pod: Some(self.name().to_owned()),
        };
        server.token(&spec).unwrap_or_else(|error| panic!("a token of {}: {error:?}", self.name()))
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.folder.join(self.name()).join("volumes").join(name)
    }

    /// Where what a container writes goes.
    pub fn log_file(&self, container: &str) -> PathBuf {
        self.folder.join(self.name()).join(format!("{container}.log"))
    }

    /// What all its containers have logged.
    pub fn logs(&self) -> String {
        let spec = &self.pod["spec"];
        let containers = list(&spec["initContainers"]).iter().chain(list(&spec["containers"]));
        let log = |name: &str| fs::read_to_string(self.log_file(name)).unwrap_or_default();
        let of_container = |name: &str| format!("{} {name}:\n{}", self.name(), log(name));
        containers.map(|container| of_container(text(&container["name"]))).collect()
    }

    /// A command of a container, in its surroundings.
    pub fn command(&self, container: &Value, program: &[String]) -> Command {
        let image = binary("outrigger-proxy");
        let image = image.parent().expect("the folder of the programs");
        let security = &container["securityContext"];
        let mut script = format!(
            "set -e\nmount -t tmpfs -o mode=755 tmpfs /run\nmount -t tmpfs -o mode=755 tmpfs /var/lib\n\
             mkdir {IMAGE}\nmount --bind '{}' {IMAGE}\n",
            image.display()
        );
        if let Some(resolver) = self.resolver {
            let namespace = self.namespace();
            script += &format!(
                "printf 'nameserver {resolver}\\nsearch {namespace}.svc.cluster.local svc.cluster.local cluster.local\\n\
                 options ndots:5\\n' >/run/resolv.conf\nmount --bind /run/resolv.conf /etc/resolv.conf\n"
            );
        }
        for mount in list(&container["volumeMounts"]) {
            let (source, target) = (self.volume(text(&mount["name"])), text(&mount["mountPath"]));
            script += &format!("mkdir -p '{target}'\nmount --bind '{}' '{target}'\n", source.display());
            if mount["readOnly"] == true {
                script += &format!("mount -o remount,bind,ro '{target}'\n");
            }
        }
        if security["readOnlyRootFilesystem"] == true {
            script += "mount -o remount,bind,ro /\n";
        }
        let (user, group) = (number(&security["runAsUser"]), number(&security["runAsGroup"]));
        let mut capabilities = "-all".to_owned();
        for name in list(&security["capabilities"]["add"]) {
            capabilities += &format!(",+{}", text(name).to_ascii_lowercase());
        }
        script += &format!(
            "exec setpriv --reuid={user} --regid={group} --clear-groups --no-new-privs --bounding-set={capabilities} \
             --inh-caps=-all -- \"$@\"\n"
        );
        let environment = self.environment(container);
        let mut command = self.net.command("sh");
        command
            .env_clear()
            .env("PATH", format!("{IMAGE}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
            .args(["-c", &script, "sh"])
            .args(program.iter().map(|argument| expand(argument, &environment)))
            .envs(environment);
        command
    }

    /// Runs a command in a container, as `kubectl exec` does.
    ///
    /// # Errors
    /// When there is no such container, or no such program.
    pub fn run(&self, container: &str, command: &[String]) -> Result<Output, String> {
        let spec = &self.pod["spec"];
        let mut all = list(&spec["containers"]).iter().chain(list(&spec["initContainers"]));
        let container = all.find(|one| one["name"] == container).ok_or("no such container")?;
        self.command(container, command).stdin(Stdio::null()).output().map_err(|error| error.to_string())
    }

    /// `env` with its references, in order.
    fn environment(&self, container: &Value) -> Vec<(String, String)> {
        let mut environment = self.services.clone();
        for variable in list(&container["env"]) {
            let from = &variable["valueFrom"];
            let value = if let Some(path) = from["fieldRef"]["fieldPath"].as_str() {
                self.field(path)
            } else if let Some(resource) = from["resourceFieldRef"]["resource"].as_str() {
                cores(container, resource)
            } else {
                expand(text(&variable["value"]), &environment)
            };
            environment.push((text(&variable["name"]).to_owned(), value));
        }
        environment
    }

    /// The downward API.
    fn field(&self, path: &str) -> String {
        match path {
            "metadata.name" => self.name().to_owned(),
            "metadata.namespace" => self.namespace().to_owned(),
            "spec.serviceAccountName" => text(&self.pod["spec"]["serviceAccountName"]).to_owned(),
            "status.podIP" => self.net.v4.to_string(),
            "status.hostIP" => self.host.to_string(),
            _ => panic!("no field of this kubelet's downward API: {path}"),
        }
    }
}

/// Where the API server and the Services of its namespace are, as every container of a Pod is told.
pub(super) fn service_variables(server: &ApiServer, pod: &Value) -> Vec<(String, String)> {
    let address = server.address();
    let mut variables = vec![
        ("KUBERNETES_SERVICE_HOST".to_owned(), address.ip().to_string()),
        ("KUBERNETES_SERVICE_PORT".to_owned(), address.port().to_string()),
    ];
    for service in server.list(&Collection::new("", "services")) {
        let is_ours = service["metadata"]["namespace"] == pod["metadata"]["namespace"];
        if is_ours && pod["spec"]["enableServiceLinks"] != false {
            let name = text(&service["metadata"]["name"]).to_ascii_uppercase().replace('-', "_");
            let port = service["spec"]["ports"][0]["port"].to_string();
            variables.push((format!("{name}_SERVICE_HOST"), text(&service["spec"]["clusterIP"]).to_owned()));
            variables.push((format!("{name}_SERVICE_PORT"), port));
        }
    }
    variables
}

/// `limits.cpu` in whole cores.
fn cores(container: &Value, resource: &str) -> String {
    assert_eq!(resource, "limits.cpu", "no resource of this kubelet's downward API");
    let limit = text(&container["resources"]["limits"]["cpu"]);
    let cores = match limit.strip_suffix('m') {
        Some(thousandths) => thousandths.parse::<u32>().expect("a quantity").div_ceil(1000),
        None => limit.parse().expect("a quantity"),
    };
    cores.to_string()
}

/// `$(NAME)` is the variable's value, `$$` is `$`, and what names no variable stays.
fn expand(text: &str, environment: &[(String, String)]) -> String {
    let (mut expanded, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        expanded += &rest[..at];
        rest = &rest[at..];
        let reference = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')'));
        let value = reference.and_then(|(name, after)| {
            let (_, value) = environment.iter().rev().find(|(known, _)| known == name)?;
            Some((value.as_str(), after))
        });
        let (part, after) = match value {
            Some(found) => found,
            None if rest.starts_with("$$") => ("$", &rest[2..]),
            None => ("$", &rest[1..]),
        };
        expanded += part;
        rest = after;
    }
    expanded + rest
}

fn write(file: &Path, content: &str) {
    fs::write(file, content).expect("write into a volume");
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("permissions");
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a container of a process says its user and group: {value}"))
}

/// The elements of a list, none of what is none.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A string that must be there.
#[track_caller]
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let environment = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())];
        let expanded = |text| expand(text, &environment);
        assert_eq!(expanded("x$(A)/$(B)$"), "x1/$(A)$");
        assert_eq!(expanded("$$(A) $(C) $(A"), "$(A) $(C) $(A");
    }
}
