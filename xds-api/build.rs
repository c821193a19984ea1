//! Writes Envoy's descriptors as one static table (`src/schema`): message, field and enum names, types, and the
//! validation rules. Reading descriptors at run time would cost tens of megabytes in every process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

#[path = "build/extra.rs"]
mod extra;
#[path = "build/rules.rs"]
mod rules;
#[path = "build/tables.rs"]
mod tables;

/// Where the descriptors are inside the package `envoy-types`.
const DESCRIPTORS: &str = "src/generated/types.bin";

fn main() {
    for file in ["build.rs", "build/extra.rs", "build/rules.rs", "build/tables.rs", "Cargo.toml"] {
        println!("cargo:rerun-if-changed={file}");
    }
    let path = envoy_types_folder().join(DESCRIPTORS);
    println!("cargo:rerun-if-changed={}", path.display());
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let mut pool = prost_reflect::DescriptorPool::decode(bytes.as_slice())
        .unwrap_or_else(|error| panic!("{} is not a descriptor set: {error}", path.display()));
    for file in extra::files() {
        pool.add_file_descriptor_proto(file).unwrap_or_else(|error| panic!("extra descriptor: {error}"));
    }
    let out = Path::new(&variable("OUT_DIR")).join("schema.rs");
    fs::write(&out, tables::generate(&pool))
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", out.display()));
}

/// The folder of the resolved package `envoy-types`, as Cargo knows it.
fn envoy_types_folder() -> PathBuf {
    // Metadata is about every package of the workspace, also those that this build does not need: on a fresh clone
    // some are not downloaded yet, and Cargo may have to fetch them.
    let metadata = metadata(&["--offline"]).or_else(|_| metadata(&[]));
    let metadata = metadata.unwrap_or_else(|error| panic!("cargo metadata failed: {error}"));
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .filter(|package| package["name"] == "envoy-types")
        .filter_map(|package| package["manifest_path"].as_str())
        .filter_map(|manifest| Path::new(manifest).parent())
        .map(Path::to_owned)
        .next()
        .unwrap_or_else(|| panic!("the package envoy-types is not among the dependencies"))
}

fn metadata(arguments: &[&str]) -> Result<serde_json::Value, String> {
    let manifest = Path::new(&variable("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let output = Command::new(variable("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--filter-platform",
            &variable("TARGET"),
            "--manifest-path",
        ])
        .arg(&manifest)
        .args(arguments)
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}
